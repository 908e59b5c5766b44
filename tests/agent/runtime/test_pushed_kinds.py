"""Pushed toggles, settings and databases take effect together in the running parts, and a revert takes them back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent
from agent.formats.down.databases import PushedBus
from agent.formats.down.documents import KINDS, Documents, by_kind, read_documents
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.runtime.databases_effect import DatabasesEffect
from agent.runtime.effects import Change, Effect, TogglesEffect
from agent.runtime.examine_databases import examine_with
from agent.runtime.settings_effect import SettingsEffect, settings_of_release
from agent.serve.current_flags import CurrentFlags
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from agent.settings import pushed_plans
from agent.settings.compiler import Limits
from agent.settings.pushed_plans import PushedPlans
from agent.settings.sections import Settings
from agent.settings.settings import parse
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.collector import Collector
from agent.telemetry.collect.collector import Limits as CollectorLimits
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.plan import BusPlan
from tests.agent.car import DATABASES
from tests.agent.pushes.world import VEHICLE, Fleet, question
from tests.agent.serve.serving import TODAY
from tests.agent.settings.test_compiler import BOMB, DEMO
from tests.agent.telemetry.spool.depot import Depot
from tests.fleet.publishing.test_conflicts import flags

LOCAL = parse('[uplink]\nbroker = "b:1"\nin_flight = 3\n[bus.can1]\ndbc = ["own.dbc"]', "agent.toml")
OWN = {"can1": compile_plan([load(DATABASES / "demo_body.dbc")])}


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "spool")


def release(**contents: bytes) -> Documents:
    paths = {name.replace("__", "/").replace("_", "."): content for name, content in contents.items()}
    return by_kind(read_documents(paths, KINDS), KINDS)


def apply(effect: Effect, documents: Documents) -> None:
    async def switch(change: Change) -> None:
        change.write()
        await change.switch()

    asyncio.run(switch(effect.prepare(documents)))


def events(depot: Depot, kind: str) -> list[dict[str, Any]]:
    depot.outbox.flush()
    return [dict(event.fields) for event in depot.events(kind)]


# ---- toggles


def test_apps_get_the_flags_of_all_documents_over_ofrep_and_from_flagds_file(tmp_path: Path) -> None:
    service, file = ToggleService(VEHICLE), FlagdFile(tmp_path)
    effect = TogglesEffect(CurrentFlags(service, file, lambda: TODAY))
    documents = release(toggles_json=flags("horn"), toggles__a_json=flags("radio", "lamp", name="a", default="off"))
    apply(effect, documents)
    assert {key: service.evaluate(key).value for key in service.keys} == {"radio": False, "lamp": False, "horn": True}
    assert service.evaluate("radio").metadata == {"flagSetId": "a"}
    assert service.evaluate("horn").metadata == {}
    written = json.loads(file.path.read_text())["flags"]
    assert {key: flag["defaultVariant"] for key, flag in written.items()} == {
        "radio": "off",
        "lamp": "off",
        "horn": "on",
    }
    apply(effect, release(toggles_json=flags("horn")))
    assert service.keys == ("horn",)


# ---- settings


class Taken:
    """Keeps what each part was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Settings]] = []

    @property
    def parts(self) -> dict[str, Any]:
        sections = ("uplink", "telemetry", "spool", "log")
        return {name: lambda settings, name=name: self.given.append((name, settings)) for name in sections}


def test_only_the_parts_whose_settings_change_are_given_new_ones_and_a_revert_gives_the_own_ones(depot: Depot) -> None:
    taken = Taken()
    effect = SettingsEffect(LOCAL, LOCAL, taken.parts, depot.outbox)
    pushed = release(settings_toml=b"[uplink]\nin_flight = 9\nmetered_lanes = ['events']\n[log]\nlevel = 'info'")
    apply(effect, pushed)
    ((part, given),) = taken.given
    assert (part, given.uplink.in_flight, given.uplink.broker) == ("uplink", 9, "b:1")
    apply(effect, pushed)
    assert len(taken.given) == 1
    apply(effect, release(toggles_json=flags("horn")))
    assert [part for part, _ in taken.given] == ["uplink", "uplink"]
    assert effect.in_force == LOCAL
    assert events(depot, "settings_in_force") == [
        {"uplink.in_flight": 9, "uplink.metered_lanes": "events"},
        {"uplink.in_flight": 3, "uplink.metered_lanes": "events,live,backlog"},
    ]


def test_the_settings_of_a_release_that_this_software_cannot_read_are_the_vehicles_own() -> None:
    assert settings_of_release(LOCAL, {"settings.toml": b"[uplink]\nin_flight = 9"}).uplink.in_flight == 9
    assert settings_of_release(LOCAL, {"settings.toml": b"[uplink]\nnew_key = 9"}) == LOCAL


# ---- databases


class Here:
    """Compiles in this process."""

    def plan(self, bus: PushedBus) -> BusPlan:
        from can_dbc.database import parse as parse_database

        return compile_plan([parse_database(each.content, "dbc", each.path) for each in bus.databases])


def test_pushed_databases_take_the_place_of_those_of_their_bus_and_a_revert_brings_them_back(depot: Depot) -> None:
    collector = Collector(
        SignalTables(("can0", "can1"), OWN), depot.outbox, MachineClock(), CollectorLimits(10**9, 10**10, 1_000, 10**6)
    )
    effect = DatabasesEffect(collector, depot.outbox, OWN, Here())
    own = collector.tables
    pushed = release(dbc__can0__a_dbc=DEMO, dbc__can1__b_dbc=DEMO.replace(b"Door", b"Portal"), dbc__can7__c_dbc=DEMO)
    apply(effect, pushed)
    assert {info.bus for table in collector.tables.tables for (info, _) in table.signals} == {"can0", "can1"}
    assert collector.tables.names.suggest("PortalState") is not None
    in_use = collector.tables
    apply(effect, pushed)
    assert collector.tables is in_use  # nothing changed, so no window closes
    apply(effect, release(toggles_json=flags("horn")))
    assert collector.tables.tables == own.tables
    first, second = events(depot, "databases_in_force")
    assert first == {"databases": "dbc/can0/a.dbc,dbc/can1/b.dbc,dbc/can7/c.dbc", "unused_buses": "can7"}
    assert second == {"databases": ""}


MAPPING = b'{"Vehicle.Speed": {"datatype": "float", "dbc2vss": {"signal": "VehicleMotion.Speed"}}}'


def test_pushed_mappings_give_names_to_campaigns_and_a_revert_takes_them_away(depot: Depot) -> None:
    plans = {"can0": compile_plan([load(DATABASES / "demo_powertrain.dbc")])}
    collector = Collector(
        SignalTables(("can0",), plans), depot.outbox, MachineClock(), CollectorLimits(10**9, 10**10, 1_000, 10**6)
    )
    effect = DatabasesEffect(collector, depot.outbox, plans, Here())
    pushed = release(mapping__car_json=MAPPING)
    apply(effect, pushed)
    assert collector.tables.names.knows("Vehicle.Speed")
    in_use = collector.tables
    apply(effect, pushed)
    assert collector.tables is in_use  # nothing changed, so no window closes
    apply(effect, release(toggles_json=flags("horn")))
    assert not collector.tables.names.knows("Vehicle.Speed")
    assert events(depot, "databases_in_force") == [{"databases": "", "vss_paths": 1}, {"databases": ""}]


def judged(plans: PushedPlans, documents: dict[str, bytes], fleet: Fleet) -> Verdict:
    async def verify(_: Question) -> Verdict:
        return Verdict(metadata={"timestamp.json": b"{}"}, release=Release(3, documents))

    return asyncio.run(examine_with(plans, examine_bundle=verify)(question(fleet, b"")))


def test_a_release_is_judged_with_its_databases_before_it_is_stored(tmp_path: Path) -> None:
    fleet, plans = Fleet(tmp_path / "fleet"), PushedPlans(tmp_path / "plans", {}, Limits(memory_bytes=160 << 20))
    assert judged(plans, {"dbc/can0/a.dbc": DEMO}, fleet).reason is None
    for content, detail in (
        (b"hello", "dbc/can0/a.dbc: line 1: the file has no entry of a DBC"),
        (BOMB, "dbc/can0/a.dbc: compiling the databases takes more than 160 MiB"),
    ):
        verdict = judged(plans, {"dbc/can0/a.dbc": content, "toggles.json": flags("horn")}, fleet)
        assert (verdict.reason, verdict.metadata) == (Reason.INVALID, {"timestamp.json": b"{}"})
        assert verdict.detail.startswith(detail)


def test_a_release_whose_databases_were_compiled_before_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, plans = Fleet(tmp_path / "fleet"), PushedPlans(tmp_path / "plans", {})
    documents = {"dbc/can0/a.dbc": DEMO, "settings.toml": b"[bus.can0]\ndbc = ['a.dbc']\nmatch = 'pgn'"}
    assert judged(plans, documents, fleet).reason is None

    async def refuse(*_: object) -> bytes:
        raise Permanent("the databases were compiled again")

    monkeypatch.setattr(pushed_plans, "compile_apart", refuse)
    assert judged(plans, documents, fleet).reason is None
    assert judged(plans, {"dbc/can0/a.dbc": DEMO + b"\n"}, fleet).reason is Reason.INVALID
