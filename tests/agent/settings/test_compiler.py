"""A pushed database is compiled as the vehicle's own would be, within limits, by a process that can only compute."""

import asyncio
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.formats.down.databases import PushedBus, PushedDatabase
from agent.settings import pushed_plans
from agent.settings.compiler import LIMITS, Limits, compile_apart
from agent.settings.pushed_plans import PushedPlans
from agent.settings.sections import BusSettings
from can_dbc.cache import from_bytes
from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.plan import BusPlan, Match
from tests.agent.car import DATABASES

DEMO = (DATABASES / "demo_body.dbc").read_bytes()
SIGNAL = b'BO_ 1 M: 8 A\n SG_ %s : 0|8@1+ (1,0) [0|1] "" A\n'
# Each multiplexer selects all that come after it, so the plan grows with the square of the file.
BOMB = b"BO_ 1 M: 8 A\n" + b"".join(b' SG_ S%d m%dM : 0|8@1+ (1,0) [0|1] "" A\n' % (n, n) for n in range(20_000))


def bus(*contents: bytes, encoding: str | None = None, match: str | None = None) -> PushedBus:
    databases = [PushedDatabase(f"dbc/can0/{n}.dbc", content, encoding) for n, content in enumerate(contents)]
    return PushedBus("can0", tuple(databases), match)  # type: ignore[arg-type]


def compiled(pushed: PushedBus, limits: Limits = LIMITS) -> BusPlan:
    plan = from_bytes(asyncio.run(compile_apart(pushed, Match.EXACT, limits)), Match.EXACT)
    assert plan is not None
    return plan


def test_the_plan_is_the_one_that_compiling_here_gives() -> None:
    pushed = bus(DEMO, SIGNAL % b"S")
    assert compiled(pushed) == compile_plan([parse(each.content, "dbc", each.path) for each in pushed.databases])


def test_an_encoding_that_python_imports_late_works_in_the_confined_process() -> None:
    content = 'BO_ 1 M: 8 A\n SG_ S : 0|8@1+ (1,0) [0|1] "千米" A\n'.encode("gbk")
    assert compiled(bus(content, encoding="gbk")).messages[0].signals[0].unit == "千米"


@pytest.mark.parametrize(
    ("pushed", "message"),
    [
        (bus(b"hello"), r"^dbc/can0/0\.dbc: line 1: the file has no entry of a DBC"),
        (bus(DEMO, b"hello"), r"^dbc/can0/1\.dbc: line 1: the file has no entry of a DBC"),
        (bus(b"\xff" + SIGNAL % b"S", encoding="utf-8"), r"^dbc/can0/0\.dbc: line 1: the text is not utf-8"),
        (bus(DEMO, encoding="nonsense"), r"^dbc/can0/0\.dbc: encoding 'nonsense' is unknown"),
        (bus(DEMO, encoding="../x"), r"^dbc/can0/0\.dbc: encoding '\.\./x' is unknown"),
    ],
)
def test_a_database_that_cannot_be_compiled_is_named_with_its_fault(pushed: PushedBus, message: str) -> None:
    with pytest.raises(Permanent, match=message):
        compiled(pushed)


def test_a_database_that_demands_too_much_memory_is_refused() -> None:
    with pytest.raises(Permanent, match=r"^dbc/can0/0\.dbc: compiling the databases takes more than 160 MiB; publish"):
        compiled(bus(BOMB), Limits(memory_bytes=160 << 20))


def test_a_database_that_demands_too_much_processor_time_is_refused() -> None:
    with pytest.raises(
        Permanent, match=r"^dbc/can0/0\.dbc: compiling .* takes more than 1 s of processor time; publish"
    ):
        compiled(bus(BOMB), Limits(cpu_s=1))


def test_a_database_that_takes_too_long_is_refused_and_no_process_stays() -> None:
    with pytest.raises(Permanent, match=r"takes more than 0\.01 s; publish smaller"):
        compiled(bus(BOMB), Limits(wall_s=0.01))


def test_a_plan_is_compiled_once_and_then_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"can0": BusSettings(dbc=("own.dbc",), match="pgn")}
    plan = PushedPlans(tmp_path, own).plan(bus(DEMO))
    # Without a match of its own, the bus keeps that of the vehicle's file.
    assert plan.match is Match.PGN
    assert len(list(tmp_path.iterdir())) == 1

    async def refuse(*_: object) -> bytes:
        raise AssertionError("the plan was compiled again")

    monkeypatch.setattr(pushed_plans, "compile_apart", refuse)
    assert PushedPlans(tmp_path, own).plan(bus(DEMO)) == plan
    with pytest.raises(AssertionError, match="again"):
        PushedPlans(tmp_path, own).plan(bus(DEMO, match="exact"))


def test_where_the_disk_refuses_the_plan_it_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("in the way")
    assert PushedPlans(tmp_path / "plans", {}).plan(bus(DEMO)).messages
