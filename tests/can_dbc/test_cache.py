"""The plan cache gives the same plans as compiling, whatever files are in its folder."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.system.durable import write_file
from can_dbc.cache import KEPT, PlanCache, from_bytes, to_bytes
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError
from can_dbc.plan import BusPlan, Match
from tests import shared_data
from tests.can_dbc.oracle import block_of

DEMO = Path(__file__).parents[2] / "can_dbc" / "dbc"
OTHER, DBC = DEMO / "demo_body.dbc", DEMO / "demo_powertrain.dbc"  # DBC has multiplexers
COMPILED = compile_plan([load(DBC)])
CONTENT = to_bytes(COMPILED)


def cache(folder):
    return PlanCache(folder, write_file)


def signed(plan):
    body = msgspec.msgpack.encode(plan)
    return hashlib.sha256(body).digest() + body


def test_a_plan_is_compiled_once_and_equal_ever_after(tmp_path):
    first = cache(tmp_path / "plans")
    assert first.plan([OTHER, DBC], Match.EXACT) == compile_plan([load(OTHER), load(DBC)])
    second = cache(tmp_path / "plans")
    assert second.plan([OTHER, DBC], Match.EXACT) == first.plan([OTHER, DBC], Match.EXACT)
    assert (first.compiled, second.compiled, second.problem) == (1, 0, None)


def test_another_order_match_or_content_is_another_plan(tmp_path):
    own = tmp_path / "own.dbc"
    own.write_bytes(DBC.read_bytes())
    plans = cache(tmp_path / "plans")
    plans.plan([own], Match.EXACT)
    plans.plan([own, OTHER], Match.EXACT)
    plans.plan([OTHER, own], Match.EXACT)
    plans.plan([own], Match.PGN)
    own.write_bytes(own.read_bytes() + b"\n")
    plans.plan([own], Match.EXACT)
    assert plans.compiled == 5


def test_another_encoding_is_another_plan_and_so_is_another_name_because_notes_have_it(tmp_path):
    own, copy = tmp_path / "own.dbc", tmp_path / "copy.dbc"
    content = 'BO_ 801 Engine: 8 Motor\n SG_ Rpm : 0|16@1+ (1,0) [0|0] "об/мин" Gauge\n'.encode("cp1251")
    own.write_bytes(content)
    copy.write_bytes(content)
    plans = cache(tmp_path / "plans")
    assert str(own) in plans.plan([own], Match.EXACT).notes[0]
    assert str(copy) in plans.plan([copy], Match.EXACT).notes[0]
    for _ in range(2):
        assert plans.plan([own], Match.EXACT, {own: "cp1251"}).messages[0].signals[0].unit == "об/мин"
    assert plans.compiled == 3


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, CONTENT[:-1], CONTENT[:40] + b"\xff" + CONTENT[41:]])
def test_a_damaged_file_is_compiled_again_and_replaced(tmp_path, damage):
    cache(tmp_path).plan([DBC], Match.EXACT)
    (file,) = tmp_path.glob("*.plan")
    file.write_bytes(damage)
    again = cache(tmp_path)
    assert again.plan([DBC], Match.EXACT) == COMPILED
    assert again.compiled == 1
    assert file.read_bytes() == CONTENT


@given(st.binary(max_size=300))
def test_random_bytes_are_never_a_plan(content):
    assert from_bytes(content, Match.EXACT) is None
    assert from_bytes(hashlib.sha256(content).digest() + content, Match.EXACT) is None


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_forged_body_gives_none_or_a_plan_that_decodes_without_failing(data):
    """The digest is corrected after the forgery, so that types, indices and lengths are what is checked."""
    body = bytearray(CONTENT[32:])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    plan = from_bytes(hashlib.sha256(body).digest() + bytes(body), Match.EXACT)
    if plan is not None:
        frames = [(m.can_id, m.extended, bytes([n] * min(m.length, 64))) for n, m in enumerate(plan.messages)]
        Decoder({0: plan}).decode(block_of(frames))


def _changed(**changes):
    message = max(COMPILED.messages, key=lambda m: len(m.multiplexers))
    assert message.multiplexers
    return replace(COMPILED, messages=(replace(message, **changes),))


def _with_signal(**changes):
    message = max(COMPILED.messages, key=lambda m: len(m.multiplexers))
    return _changed(signals=(*message.signals[:-1], replace(message.signals[-1], **changes)))


@pytest.mark.parametrize(
    "plan",
    [
        _with_signal(bits=65),
        _with_signal(bits=0),
        _with_signal(start=600),
        _with_signal(start=-1),
        _with_signal(multiplexer=99),
        _with_signal(multiplexer_ids=(1, 9_999), multiplexer=0),
        _changed(multiplexers=()),
        _changed(can_id=1 << 29, extended=True),
        _changed(can_id=1 << 11, extended=False),
        _changed(length=-1),
        _changed(defect="because"),
        replace(COMPILED, match=Match.PGN),
        replace(COMPILED, messages=COMPILED.messages[:1] * 2),
    ],
)
def test_a_plan_that_the_decoder_could_not_rely_on_is_refused(plan):
    assert from_bytes(signed(_changed()), Match.EXACT) is not None
    assert from_bytes(signed(plan), Match.EXACT) is None


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "plans").write_text("not a folder")
    plans = cache(tmp_path / "plans")
    assert plans.plan([DBC], Match.EXACT) == COMPILED
    assert plans.problem is not None
    assert "compiled at each start" in plans.problem


def test_old_files_are_let_go_of(tmp_path):
    own = tmp_path / "own.dbc"
    plans = cache(tmp_path / "plans")
    for number in range(KEPT + 3):
        own.write_bytes(DBC.read_bytes() + b"\n" * number)
        plans.plan([own], Match.EXACT)
    assert len(list((tmp_path / "plans").iterdir())) == KEPT


def test_a_database_that_is_missing_or_wrong_is_a_database_error(tmp_path):
    (tmp_path / "wrong.dbc").write_text("nonsense")
    for name in ("missing.dbc", "wrong.dbc"):
        with pytest.raises(DatabaseError):
            cache(tmp_path / "plans").plan([tmp_path / name], Match.EXACT)


def test_a_warm_cache_goes_without_cantools(tmp_path):
    cache(tmp_path).plan([DBC], Match.EXACT)
    program = (
        "import sys; from pathlib import Path\n"
        "from agent.system.durable import write_file; from can_dbc.cache import PlanCache\n"
        "from can_dbc.plan import Match\n"
        "import can_dbc.decoder\n"
        f"plans = PlanCache(Path({str(tmp_path)!r}), write_file)\n"
        f"plan = plans.plan([Path({str(DBC)!r})], Match.EXACT)\n"
        "assert plans.compiled == 0 and plan.messages\n"
        "print('cantools' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.shared
@pytest.mark.parametrize("match", Match)
def test_every_open_database_comes_back_equal(match):
    shared_data.require()
    for path in shared_data.databases():
        try:
            plan = compile_plan([load(path)], match)
        except DatabaseError:
            continue
        back = from_bytes(to_bytes(plan), match)
        assert isinstance(back, BusPlan), path
        assert repr(back) == repr(plan)
