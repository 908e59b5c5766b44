"""canmatrix reads the same messages, signals and values, but for the differences that docs/second_opinion.md explains.

cantools is the parser of ARXML, KCD and SYM files and the oracle of other tests, so its faults would be seen by none of
them.  canmatrix shares no code with it.
"""

from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from agent.sources.replay import read_blocks
from can_dbc.buses import file_and_bus
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.errors import DatabaseError
from can_dbc.frames import EXTENDED
from can_dbc.plan import BusPlan, Match, match_key
from tests import shared_data
from tests.can_dbc import second_opinion
from tests.can_dbc.arxml_text import Field, Frame, arxml, arxml_of_buses, limits, line, method, text
from tests.can_dbc.second_opinion import Difference, compared, compared_values, matrix_of, random_payloads

PAGE = Path(__file__).resolve().parents[2] / "docs" / "second_opinion.md"
RANDOM_FRAMES = 8  # of each message; canmatrix needs some 100 us for one
FRAMES_OF_CAPTURE = 4  # different payloads of each message
BLOCKS_OF_CAPTURE = 40

OIL = Frame(
    "Oil",
    0x2A1,
    [
        Field("Bar", method=method(line(-50, 3, bottom=(4,)), "RAT_FUNC")),
        Field("Temp", start=8, bits=16, encoding="2C", method=method(line(-40, 0.5))),
        Field("Level", start=31, bits=12, big=True, method=method(line(1, 0.25))),
        Field(
            "State", start=40, bits=3, method=method(text("Ok", limits(0, 0)) + text("Low", limits(1, 1)), "TEXTTABLE")
        ),
    ],
)
FLOW = Frame("Flow", 0x18FEEF21, [Field("Rate", bits=32, encoding="IEEE754"), Field("Sum", start=32, bits=32)])
KCD = """<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0"><Document/><Bus name="Drive">
<Message id="0x2A1" name="Oil" length="8">
 <Multiplex name="Which" offset="0" length="4">
  <MuxGroup count="0"><Signal name="Bar" offset="8" length="12"><Value slope="0.5" intercept="-40"/></Signal></MuxGroup>
  <MuxGroup count="3"><Signal name="Temp" offset="8" length="8"><Value type="signed"/></Signal></MuxGroup>
 </Multiplex>
 <Signal name="Level" offset="32" length="12" endianess="big"><Value slope="0.25" intercept="1"/></Signal>
 <Signal name="State" offset="48" length="3">
  <LabelSet><Label name="Ok" value="0"/><Label name="Low" value="1"/></LabelSet>
 </Signal>
</Message>
<Message id="0x18FEEF21" name="Flow" length="8" format="extended">
 <Signal name="Rate" offset="0" length="32"><Value type="single"/></Signal>
 <Signal name="Sum" offset="32" length="32"><Value slope="0.001"/></Signal>
</Message></Bus></NetworkDefinition>"""
# Without {SIGNALS} and Sig, which canmatrix does not read.
SYM = """FormatVersion=6.0 // Do not edit this line!
Title="car"

{ENUMS}
Enum=State(0="Ok", 1="Low")

{SEND}
[Oil]
ID=2A1h
Len=8
Mux=Zero 0,4 0
Var=Bar unsigned 8,12 /f:0.5 /o:-40
[Oil]
Len=8
Mux=Three 0,4 3
Var=Temp signed 8,8
[Tank]
ID=2A2h
Len=8
Var=Level unsigned 32,12 -m /f:0.25 /o:1
Var=State unsigned 48,3 /e:State
[Flow]
ID=18FEEF21h
Type=Extended
Len=8
Var=Rate float 0,32
Var=Total unsigned 32,32 /f:0.001
"""
DBC = """BO_ 673 Oil: 8 X
 SG_ Which M : 0|4@1+ (1,0) [0|0] "" X
 SG_ Bar m0 : 8|12@1+ (0.5,-40) [0|0] "bar" X
 SG_ Temp m3 : 8|8@1- (1,0) [0|0] "degC" X
 SG_ Level : 39|12@0+ (0.25,1) [0|0] "%" X
 SG_ State : 48|3@1+ (1,0) [0|0] "" X

BO_ 2566844193 Flow: 8 X
 SG_ Rate : 0|32@1- (1,0) [0|0] "l/s" X
 SG_ Sum : 32|32@1+ (0.001,0) [0|0] "l" X

VAL_ 673 State 0 "Ok" 1 "Low" ;
SIG_VALTYPE_ 2566844193 Rate : 1;
"""
GENERATED = {
    "generated.arxml": arxml(OIL, FLOW),
    "generated.kcd": KCD.encode(),
    "generated.sym": SYM.encode(),
    "generated.dbc": DBC.encode(),
}


@cache
def explained() -> tuple[tuple[str, str, str], ...]:
    """Return database, kind and subject of each row of the table; a subject may have wildcards."""
    cells = [[c.strip().strip("`") for c in row.split("|")[1:-1]] for row in PAGE.read_text().splitlines()]
    return tuple((row[0], row[1], row[2]) for row in cells if len(row) == 4 and Path(row[0]).suffix)


def unexplained(database: str, found: list[Difference]) -> list[str]:
    rows = [(kind, subject) for name, kind, subject in explained() if fnmatchcase(database, name)]
    return [
        f"{database} | {difference.kind} | {difference.subject} | {difference.detail}"
        for difference in found
        if not any(difference.kind == kind and fnmatchcase(difference.subject, subject) for kind, subject in rows)
    ]


def opinions(content: bytes, name: str):
    """Return our plan and canmatrix's matrix; skip if one of both refuses the file."""
    suffix = name.rpartition(".")[2]
    try:
        plan = compile_plan([parse(content, suffix, name)])
    except DatabaseError as error:
        pytest.skip(f"refused here: {error}")
    matrix = matrix_of(content, suffix)
    if matrix is None:
        pytest.skip("refused by canmatrix")
    return plan, matrix


@pytest.mark.parametrize("name", GENERATED)
def test_generated_databases_of_each_format_are_read_alike(name):
    plan = compile_plan([parse(GENERATED[name], name.rpartition(".")[2], name)])
    matrix = matrix_of(GENERATED[name], name.rpartition(".")[2])
    assert matrix is not None
    found = [*compared(plan, matrix), *compared_values(plan, matrix, random_payloads(plan, 200, seed=len(name)))]
    assert sum(len(message.signals) for message in plan.messages) >= 6
    assert unexplained(name, found) == []


def test_each_bus_of_a_file_is_read_alike():
    content = arxml_of_buses({"Drive": [OIL], "Cabin": [FLOW]})
    for bus, message in (("Drive", "Oil"), ("Cabin", "Flow")):
        plan = compile_plan([parse(content, "arxml", f"car.arxml#{bus}")])
        assert [m.name for m in plan.messages] == [message]
        matrix = matrix_of(content, "arxml", bus)
        found = [*compared(plan, matrix), *compared_values(plan, matrix, random_payloads(plan, 50, seed=1))]
        assert unexplained("generated.arxml", found) == []


@pytest.mark.shared
@pytest.mark.parametrize("path", shared_data.databases(), ids=lambda path: path.name)
def test_every_open_database_is_read_alike(path):
    shared_data.require()
    plan, matrix = opinions(path.read_bytes(), path.name)
    found = [*compared(plan, matrix), *compared_values(plan, matrix, random_payloads(plan, RANDOM_FRAMES, seed=7))]
    assert unexplained(path.name, found) == []


@pytest.mark.shared
@pytest.mark.parametrize("capture", shared_data.captures(), ids=str)
def test_frames_of_captures_have_the_same_values(capture):
    shared_data.require()
    match = Match(capture.match)
    payloads = _payloads(capture.path, match)
    frames = 0
    for bus, files in capture.databases.items():
        for path in files:
            content = file_and_bus(path)[0].read_bytes()
            suffix = path.suffix[1:].lower()
            try:
                plan = compile_plan([load(path)], Match.EXACT)
            except DatabaseError:
                continue  # The refusal is a matter of other tests.
            matrix = matrix_of(content, suffix)
            if matrix is not None:
                own = _of_messages(plan, payloads[bus] if bus in payloads else _all(payloads), match)
                frames += sum(map(len, own.values()))
                assert unexplained(path.name, list(compared_values(plan, matrix, own))) == []
    assert frames > 0 or not capture.known


def _payloads(log: Path, match: Match) -> dict[str, dict[int, set[bytes]]]:
    """Return some payloads of the log by bus and by the key under which a plan finds their message."""
    found: dict[str, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    for number, block in enumerate(read_blocks(log, block_frames=2048)):
        if number == BLOCKS_OF_CAPTURE:
            break
        columns = zip(block.bus.tolist(), block.can_id.tolist(), block.flags.tolist(), strict=True)
        for row, (bus, can_id, flags) in enumerate(columns):
            some = found[block.buses[bus]][match_key(can_id, bool(flags & EXTENDED), match)]
            if len(some) < FRAMES_OF_CAPTURE:
                some.add(block.data[row, : block.length[row]].tobytes())
    return found


def _all(payloads: dict[str, dict[int, set[bytes]]]) -> dict[int, set[bytes]]:
    merged: dict[int, set[bytes]] = defaultdict(set)
    for of_bus in payloads.values():
        for key, some in of_bus.items():
            merged[key] |= some
    return merged


def _of_messages(plan: BusPlan, payloads: dict[int, set[bytes]], match: Match) -> dict[tuple[int, bool], list[bytes]]:
    return {
        (m.can_id, m.extended): sorted(payloads.get(match_key(m.can_id, m.extended, match), ())) for m in plan.messages
    }


def test_a_difference_of_each_kind_is_found():
    """A comparison that finds nothing anywhere would pass all tests above."""
    plan, matrix = opinions(GENERATED["generated.dbc"], "generated.dbc")
    oil, flow = plan.messages
    which, bar, temp, level, state = oil.signals
    wrong = replace(
        oil,
        length=7,
        signals=(
            which,
            replace(bar, scale=0.25, multiplexer_ids=(3,)),
            replace(temp, kind=second_opinion.Kind.UINT, unit="K"),
            replace(level, start=38),
            replace(state, texts={1: "High"}),
        ),
    )
    plan = BusPlan((wrong, replace(flow, can_id=99)), Match.EXACT)
    found = {(d.kind, d.subject) for d in compared(plan, matrix)}
    assert found == {
        ("length", "Oil"),
        ("scale", "Oil.Bar"),
        ("selection", "Oil.Bar"),
        ("type", "Oil.Temp"),
        ("unit", "Oil.Temp"),
        ("place", "Oil.Level"),
        ("texts", "Oil.State"),
        ("only here", "Flow"),
        ("only there", "Flow"),
    }
    payloads = {(673, False): [bytes([3, 0xFF, 2, 3, 0x45, 0x67, 1, 0])]}
    found = {
        (d.kind, d.subject)
        for d in compared_values(replace(plan, messages=(replace(wrong, length=8),)), matrix, payloads)
    }
    assert {("value", "Oil.Temp"), ("value", "Oil.Level"), ("text", "Oil.State"), ("selected", "Oil.Bar")} <= found


def test_a_difference_that_the_page_does_not_name_is_unexplained():
    assert unexplained("car.dbc", [Difference("value", "Oil.Bar", "1 and 2")]) == [
        "car.dbc | value | Oil.Bar | 1 and 2"
    ]
