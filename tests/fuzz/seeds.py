"""Makes small valid inputs in code, with every construct that the readers know."""

import gzip
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import can
import zstandard
from cantools.database.can import Database, Message, Signal

DBC = (
    b"""VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Plain: 8 ECU
 SG_ A : 0|16@1+ (0.5,-10) [0|100] "km/h" ECU
 SG_ B : 23|12@0- (1,0) [0|0] "" ECU
VAL_ 256 B -1 "neg" 0 "zero" 1 "one" ;
""",
    b"""BO_ 2566844158 Wide: 64 ECU
 SG_ Real : 0|32@1- (1,0) [0|0] "V" ECU
 SG_ Double : 64|64@1- (1,0) [0|0] "" ECU
 SG_ Far : 320|64@1+ (1,0) [0|0] "" ECU
SIG_VALTYPE_ 2566844158 Real : 1;
SIG_VALTYPE_ 2566844158 Double : 2;
""",
    b"""BO_ 291 Mux: 8 ECU
 SG_ M M : 0|4@1+ (1,0) [0|0] "" ECU
 SG_ X m0 : 8|8@1+ (1,0) [0|0] "" ECU
 SG_ N m1M : 8|8@1+ (1,0) [0|0] "" ECU
 SG_ Y m3 : 16|8@1- (1,0) [0|0] "" ECU
SG_MUL_VAL_ 291 N M 1-2;
SG_MUL_VAL_ 291 Y N 3-3, 5-10;
""",
    b"""BO_ 1 One: 1 ECU
 SG_ Bit : 0|1@1+ (1,0) [0|1] "" ECU
BA_DEF_ BO_  "GenMsgCycleTime" INT 0 65535;
BA_DEF_DEF_  "GenMsgCycleTime" 100;
BA_ "GenMsgCycleTime" BO_ 1 50;
CM_ SG_ 1 Bit "a \xe4 comment";
VAL_TABLE_ T 0 "no" 1 "yes" ;
EV_ E: 0 [0|1] "" 0 1 DUMMY_NODE_VECTOR0 ECU;
SIG_GROUP_ 1 G 1 : Bit;
""",
)
DBC_WORDS = (
    b"BO_ ", b"SG_ ", b"SG_MUL_VAL_ ", b"VAL_ ", b"SIG_VALTYPE_ ", b" m1M ", b"@0-", b"|64@1+", b"BU_:", b"BA_ ", b'"',
    b";", b" : ", b'BO_ 256 Plain: 8 ECU\n SG_ A : 0|64@1+ (1,0) [0|0] "" ECU\n', b"BO_TX_BU_ 1 : ECU;", b"CM_ \"x\";",
)  # fmt: skip


def containers() -> Database:
    """Return containers with 11-bit and 29-bit identifiers, with plain, multiplexed and nested messages."""
    mux = [
        Signal("M", 0, 2, is_multiplexer=True),
        Signal("X", 8, 8, multiplexer_ids=[1, 2], multiplexer_signal="M"),
    ]
    plain = [Signal("A", 0, 12), Signal("B", 23, 16, "big_endian", is_signed=True)]
    inner = [Message(1, "Plain", 4, plain, header_id=0), Message(1, "Mux", 2, mux, header_id=0x010203)]
    deep = Message(1, "Deep", 8, [], contained_messages=inner[:1], header_id=0x040506)
    held = [*inner, deep]
    return Database(
        [
            Message(0x120, "Short", 8, [], contained_messages=held),
            Message(0x18FEF100, "Wide", 64, [], is_extended_frame=True, contained_messages=held),
        ]
    )


CANDUMP = (
    b"(1700000000.000001) can0 123#0011223344556677\n(1700000000.5) can1 18FEF100#00 R\n",
    b"(1.0) vcan0 124##30FFFFFFFFFFFFFFFF00C03F00 T\n(2.0) can0 123#R8\n(3.0) can0 20000088#0000000000000000\n",
    b"(1436509052.249713) can0 7FF#\n(1436509052.449713) vcan0 1F334455##1\n",
)
_MESSAGES = (
    can.Message(timestamp=1_700_000_000.001, arbitration_id=0x123, is_extended_id=False, data=bytes(8), channel=0),
    can.Message(timestamp=1_700_000_000.002, arbitration_id=0x18FEF121, data=b"\x01\x02", channel=1),
    can.Message(timestamp=1_700_000_000.003, arbitration_id=0x7, is_remote_frame=True, dlc=4, channel=0),
    can.Message(timestamp=1_700_000_000.004, is_error_frame=True, channel=0),
    can.Message(timestamp=1_700_000_000.005, arbitration_id=0x9, is_fd=True, bitrate_switch=True, data=bytes(64)),
)
_CLASSIC = {".trc"}  # python-can's writers of these formats cannot write FD frames.
TEXT_WORDS = (b"##", b"#R", b"Rx", b"Tx", b" d 8 ", b"CANFD", b"ErrorFrame", b"date", b"base hex", b";$", b"\n", b"\t")


PACK = {".gz": gzip.compress, ".zst": zstandard.compress}


def packed(suffix: str, content: bytes) -> bytes:
    return PACK[suffix](content)


@cache
def log(suffix: str) -> tuple[bytes, ...]:
    """Return logs as python-can writes them.  MF4 logs are also made without compression, and without finalisation."""
    if suffix == ".log":
        return CANDUMP
    if suffix in PACK:
        whole = [packed(suffix, content) for content in (*CANDUMP, CANDUMP[0] * 400)]
        return (*whole, whole[0] + whole[1])
    found = [_written(suffix, messages) for messages in (_MESSAGES[:2], _MESSAGES)]
    if suffix == ".mf4":
        plain = _written(suffix, _MESSAGES, compression_level=0)
        found += [plain, _unfinalised(plain)]
    return tuple(found)


def _written(suffix: str, messages: Sequence[can.Message], **options: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"written{suffix}"
        with can.Logger(path, **options) as logger:
            for message in messages:
                if not (suffix in _CLASSIC and message.is_fd):
                    logger.on_message_received(message)
        return path.read_bytes()


def _unfinalised(content: bytes) -> bytes:
    """Return the log as a logger without power leaves it: frame counters and the data length are not final."""
    return b"UnFinMF " + content[8:60] + (0b101).to_bytes(2, "little") + content[62:]
