"""`headunit-agent check`: everything that a configuration names is read and tried, short of connecting.

Goes through the same functions that `run` uses.  One mistake does not hide the next: each part is checked on its own.
"""

import difflib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.errors import AgentError
from agent.formats.down.campaign import SignalRule
from agent.link.endpoint import tls_context
from agent.runtime.assembly import CampaignFile, endpoint, local_campaigns, make_source, source_buses
from agent.settings import identity as identities
from agent.settings import settings as configuration
from agent.settings.plans import bus_plan
from agent.settings.settings import Loaded, PacketRingSource, PythonCanSource, Telemetry
from agent.sources import Source, interfaces, ring_socket
from can_dbc.plan import BusPlan

RENEW: Final = timedelta(days=30)
_T = TypeVar("_T")


@dataclass(slots=True)
class Report:
    """`problems` keep the agent from working as configured; `notes` are worth knowing.

    As text it leaves the problems to the caller, who says them where errors go.
    """

    file: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Everything, in plain values for JSON."""
        return {"ok": self.ok, "file": self.file, "problems": self.problems, "notes": self.notes, **self.facts}

    def __str__(self) -> str:
        lines = [f"note: {note}" for note in self.notes]
        lines += [f"{name:<10}{line}" for name, value in self.facts.items() for line in _lines(value)]
        lines.append(f"{self.file}: {'ok' if self.ok else f'{len(self.problems)} problem(s)'}")
        return "\n".join(lines)

    def tried(self, work: Callable[[], _T]) -> _T | None:
        """The result of `work`; where it fails, None and one problem more."""
        try:
            return work()
        except AgentError as error:
            self.problems.append(str(error))
            return None


def _lines(fact: Any) -> list[str]:
    """One fact for a person: a line for each key of a mapping."""
    if isinstance(fact, Mapping):
        return [f"{key} {', '.join(_lines(value))}" for key, value in fact.items()]
    return [", ".join(fact)] if isinstance(fact, list) else [str(fact)]


def check(file: Path) -> Report:
    """Check the configuration `file` and all it names."""
    report = Report(str(file))
    loaded = report.tried(lambda: configuration.load(file))
    if loaded is None:
        return report
    _check_identity(loaded, report)
    plans = {bus: plan for bus in loaded.settings.bus if (plan := report.tried(lambda b=bus: bus_plan(loaded, b)))}  # type: ignore[misc]
    _check_databases(plans, report)
    _check_sources(loaded, report)
    campaigns = report.tried(lambda: local_campaigns(loaded.path(loaded.settings.telemetry.campaigns)))
    if campaigns is not None:
        _check_campaigns(campaigns, plans, loaded, report)
    _check_folders(loaded, report)
    return report


def _check_identity(loaded: Loaded, report: Report) -> None:
    identity = report.tried(lambda: identities.load(loaded.path(loaded.settings.identity.folder)))
    if identity is None:
        return
    now = datetime.now(UTC)
    report.tried(lambda: tls_context(endpoint(identity, loaded.settings.uplink), now))
    expiry = identity.certificate.not_valid_after_utc
    if now < expiry < now + RENEW:
        report.notes.append(f"{identity.folder}: the certificate expires on {expiry:%Y-%m-%d}; renew it")
    report.facts["vehicle"] = identity.vehicle


def _check_databases(plans: dict[str, BusPlan], report: Report) -> None:
    for bus, plan in plans.items():
        report.notes += [f"bus.{bus}: {note}" for note in plan.notes]
    report.facts["buses"] = {
        bus: {"messages": len(plan.messages), "signals": sum(len(message.signals) for message in plan.with_contained)}
        for bus, plan in plans.items()
    }


def _check_sources(loaded: Loaded, report: Report) -> None:
    sources: list[Source] = []
    for number in range(len(loaded.settings.sources)):
        source = report.tried(lambda n=number: make_source(loaded, n, lambda _: None))  # type: ignore[misc]
        if source is not None:
            sources.append(source)
    buses = report.tried(lambda: source_buses(sources))
    for bus in buses or ():
        if bus not in loaded.settings.bus:
            report.notes.append(f"bus {bus} has no [bus.{bus}] table: its frames are only counted")
    for bus in loaded.settings.bus:
        if sources and buses is not None and bus not in buses:
            report.notes.append(f"[bus.{bus}]: no source delivers this bus; they deliver {', '.join(buses) or 'none'}")
    if not loaded.settings.sources:
        report.notes.append("no [[sources]]: the agent will collect nothing, only take pushes and serve toggles")
    report.facts["sources"] = [source.name for source in sources]
    for number, configured in enumerate(loaded.settings.sources):
        if isinstance(configured, PythonCanSource):
            _check_interface(f"{loaded.file}: sources[{number}].interface", configured.interface, report)
        elif isinstance(configured, PacketRingSource) and interfaces.is_can(configured.interface) is False:
            where = f"{loaded.file}: sources[{number}].interface"
            report.problems.append(f"{where}: {configured.interface} is no CAN interface; name another")
    _check_capture([s for s in loaded.settings.sources if isinstance(s, PythonCanSource | PacketRingSource)], report)


def _check_interface(where: str, name: str, report: Report) -> None:
    """Whether python-can, or a plug-in of it, has an interface of that name."""
    from can import VALID_INTERFACES  # half of the start of a check that has none

    if name not in VALID_INTERFACES:
        close = difflib.get_close_matches(name, VALID_INTERFACES, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(VALID_INTERFACES))}"
        report.problems.append(f"{where}: python-can has no interface {name!r}; {remedy}")


def _check_capture(sources: Sequence[PythonCanSource | PacketRingSource], report: Report) -> None:
    """Which way frames come from each live bus, and why."""
    reason = ring_socket.unavailable()
    ring = f"packet ring (CAP_NET_RAW is held, kernel {os.uname().release} supports it)"
    if reason is not None:
        ring = f"python-can (socketcan), because packet rings cannot be had: {reason}"
    rings = [source for source in sources if isinstance(source, PacketRingSource)]
    if sources:
        report.facts["capture"] = {
            source.bus: ring if source in rings else f"python-can ({source.interface}), as configured"
            for source in sources
        }
    if rings and reason is not None:
        report.notes.append(f"packet_ring: falls back to python-can, at ten times the cost: {reason}")
    for source in rings:
        up = interfaces.interface_up(source.interface)
        if not up:
            state = "does not exist" if up is None else "is down"
            report.notes.append(f"source {source.bus}: interface {source.interface} {state}; the agent waits for it")


def _check_campaigns(
    campaigns: Sequence[CampaignFile], plans: dict[str, BusPlan], loaded: Loaded, report: Report
) -> None:
    names = [f"{m.name}.{s.name}" for plan in plans.values() for m in plan.with_contained for s in m.signals]
    known = bool(plans) and plans.keys() == loaded.settings.bus.keys()  # a broken database is a problem enough
    folder = loaded.path(loaded.settings.telemetry.campaigns)
    for file in campaigns:
        for rule in file.campaign.rules:
            if known and not any(_selects(rule, name) for name in names):
                report.notes.append(f"{file.source}: {rule.name!r} matches no signal of the databases")
    if not folder.is_dir() and loaded.settings.telemetry.campaigns != Telemetry().campaigns:
        report.problems.append(f"{loaded.file}: telemetry.campaigns: {folder} is no folder; make it, or name another")
    elif not campaigns:
        report.notes.append(f"{folder}: no campaigns; nothing is collected until the fleet pushes one")
    report.facts["campaigns"] = [f"{file.campaign.name}@{file.campaign.revision}" for file in campaigns]


def _selects(rule: SignalRule, name: str) -> bool:
    return rule.name == name or (rule.is_glob and fnmatchcase(name, rule.name))


def _check_folders(loaded: Loaded, report: Report) -> None:
    state = loaded.path(loaded.settings.state.folder)
    for key, name in (
        ("folder", loaded.settings.state.folder),
        ("runtime_folder", loaded.settings.state.runtime_folder),
    ):
        folder = loaded.path(name)
        present = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
            report.problems.append(f"{loaded.file}: state.{key}: {present} is not a folder that this user may write")
    present = next(parent for parent in (state, *state.parents) if parent.exists())
    free = shutil.disk_usage(present).free
    wanted = loaded.settings.spool.quota_bytes + loaded.settings.spool.reserve_bytes
    if free < wanted:
        report.notes.append(
            f"state.folder: {free:,} bytes free on {present}, less than spool.quota_bytes + reserve_bytes "
            f"({wanted:,}); the spool will evict earlier than its quota says"
        )
