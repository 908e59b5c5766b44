"""Writes small DBC files and decodes frames with them, for the tests of the reader."""

import struct

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder
from tests.can_dbc.oracle import block_of, decoded

TURN = ' SG_ Rpm : 0|16@1+ (0.25,0) [0|16383.75] "1/min" Gauge'
OIL = ' SG_ Oil : 16|8@1+ (1,-40) [-40|215] "degC" Gauge'


def dbc(*lines, message="BO_ 801 Engine: 8 Motor"):
    """Return the text of a DBC with one message; `lines` follow the BO_ entry."""
    return "\n".join(
        ['VERSION ""', "", "NS_ :", "\tCM_", "\tBA_DEF_", "", "BS_:", "", "BU_: Motor Gauge", "", message, *lines, ""]
    )


def plan_of(text, encoding=None):
    """Compile the plan of a DBC, given as text or bytes."""
    content = text if isinstance(text, bytes) else text.encode()
    return compile_plan([parse(content, "dbc", "small.dbc", encoding)])


def samples(text, *payloads, encoding=None, can_id=801):
    """Return what each payload (hex, padded to 8 bytes) holds: the value of each signal, or its text."""
    plan = plan_of(text, encoding)
    frames = [(can_id, False, bytes.fromhex(payload).ljust(8, b"\0")) for payload in payloads]
    found = [{} for _ in payloads]
    for columns in Decoder({0: plan}).decode(block_of(frames)).columns:
        for row, listed in decoded(columns).items():
            for sample in listed:
                (value,) = struct.unpack("<d", struct.pack("<q", sample.value))
                found[row][sample.name] = sample.text or value
    return found


FRAME = "A00F5A0000000000"
WHOLE = {"Rpm": 1000.0, "Oil": 50.0}
