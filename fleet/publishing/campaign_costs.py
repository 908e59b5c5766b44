"""Estimates what a campaign makes each vehicle send, before it is signed.

    from a log    `headunit-agent estimate` collects the log with the code of the vehicle, in a process of its own
    from the lake the rates at which vehicles of each model of the audience have sent the signals lately, thinned as the
                  campaign asks; `onChange` is not taken into account, so the estimate is an upper limit there

Both also find the names in a campaign that match no signal of the given databases, or no signal that the vehicles have
sent.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec

from agent.errors import Permanent
from agent.formats.down.campaign import Campaign, SignalRule, names_in
from agent.formats.down.conditions.scheme import RING_SAMPLE_BYTES
from agent.formats.up.columns import Described, SignalInfo
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES
from agent.formats.up.signals import SignalTable
from agent.system.words import counted
from agent.telemetry.collect.campaign import rules_of
from agent.telemetry.collect.names import SignalNames, is_glob
from can_dbc.values import Kind
from fleet.lake.location import Location
from fleet.lake.recorded_rates import VEHICLES, RecordedRates, active_vehicles, recorded_rates
from fleet.publishing.population import Population


@dataclass(frozen=True, slots=True)
class Cost:
    """Says what one campaign makes a vehicle send.

    `model` is the brand and model that the figure is for, or "" for a log.  `basis` says where the figure comes from.
    `bytes_per_hour` is None if there is no figure.  `ring_bytes` is the memory that a condition-based campaign takes in
    the vehicle, as far as known.  `unknown` has the names that match no signal, each with the nearest
    known name or None.
    """

    campaign: str
    model: str
    basis: str
    bytes_per_hour: float | None
    unknown: Mapping[str, str | None] = field(default_factory=dict)
    ring_bytes: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return the cost in plain values for JSON."""
        figure = None if self.bytes_per_hour is None else round(self.bytes_per_hour)
        return {
            "campaign": self.campaign,
            "model": self.model or None,
            "basis": self.basis,
            "bytes_per_hour": figure,
            "ring_bytes": self.ring_bytes,
            "unknown": dict(self.unknown),
        }

    def line(self) -> str:
        """Return the figure in words."""
        whose = f" from each {self.model}" if self.model else ""
        rings = f"; its rings take up to {self.ring_bytes / 1e6:,.2f} MB of memory" if self.ring_bytes else ""
        if self.bytes_per_hour is None:
            return f"campaign {self.campaign}: no estimate of its bytes ({self.basis}){rings}"
        mb_per_hour = f"{self.bytes_per_hour / 1e6:,.2f} MB an hour"
        return f"campaign {self.campaign}: about {mb_per_hour}{whose} ({self.basis}){rings}"

    def warnings(self) -> list[str]:
        """Return a warning for each name that matches no signal."""
        among = "the databases" if not self.model else f"what {self.model} has sent"
        return [
            f"Campaign {self.campaign}: {name!r} matches no signal of {among}; "
            + (f"did you mean {near!r}?" if near else "check its spelling.")
            for name, near in self.unknown.items()
        ]


class _Estimate(msgspec.Struct, frozen=True):
    name: str
    unknown: dict[str, str | None]
    bytes_per_hour: float | None
    ring_bytes: int


class _Estimates(msgspec.Struct, frozen=True):
    seconds: float | None
    campaigns: list[_Estimate]


def costs_by_vehicle_code(
    campaigns: Sequence[Path], databases: Sequence[str], log: Path | None, zone: str
) -> list[Cost]:
    """Return the costs of the `campaigns` files, from a recorded `log`; without a log, only the unknown names.

    `databases` are values of `--dbc`.  The agent's code runs in a process of its own, because the cloud side does not
    import it.  Raises: Permanent if the log or a database cannot be used.
    """
    words = [word for file in campaigns for word in ("--campaign", str(file))]
    words += [word for database in databases for word in ("--dbc", database)]
    if log is not None:
        words += ["--log", str(log), "--log-timezone", zone]
    # On a terminal the process shows its progress itself.
    shown = sys.stderr.isatty()
    done = subprocess.run(
        [sys.executable, "-m", "agent", "estimate", "--json", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if shown else subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        said = "see the message above" if shown else done.stderr.decode(errors="replace").strip()
        raise Permanent(f"The campaigns could not be tried with --dbc and --log: {said}")
    found = msgspec.json.decode(done.stdout, type=_Estimates)
    basis = f"{log}, {found.seconds or 0:,.0f} s" if log is not None else "no --log"
    return [Cost(each.name, "", basis, each.bytes_per_hour, each.unknown, each.ring_bytes) for each in found.campaigns]


def least_ring_bytes(campaign: Campaign) -> int:
    """Return the least memory that the rings of a condition-based campaign take in a vehicle with all its signals.

    Globs are left out, because only databases say how many signals they mean.
    """
    if campaign.condition is None:
        return 0
    exact = [rule for rule in campaign.rules if not is_glob(rule.name)]
    return RING_SAMPLE_BYTES * sum(rule.max_samples or 0 for rule in exact)


def costs_by_lake(
    campaigns: Sequence[tuple[Campaign, frozenset[str]]], population: Population, lake: str | Location, today: date
) -> list[Cost]:
    """Return the cost of each campaign for each model of the vehicles that get it, by what these have sent lately.

    `campaigns` are pairs of a campaign and the vehicles that it is for.  Raises: Permanent if there is no lake.
    """
    active = active_vehicles(lake, today)
    models = population.models
    rates: dict[str, RecordedRates | None] = {}
    found = []
    for campaign, reached in campaigns:
        for model in sorted({models[vehicle] for vehicle in reached}):
            if model not in rates:
                # Vehicles of the model outside of the audience have the same signals, so they count as well.
                some = [vehicle for vehicle in active if models.get(vehicle) == model][:VEHICLES]
                rates[model] = recorded_rates(lake, some, today, batch_bytes=SEAL_OVERHEAD_BYTES) if some else None
            found.append(_cost(campaign, model, rates[model]))
    return found


def _cost(campaign: Campaign, model: str, rates: RecordedRates | None) -> Cost:
    if rates is None:
        return Cost(campaign.name, model, f"no {model} has sent samples lately; give --log and --dbc", None)
    signals = sorted(rates.per_second)
    described: list[Described] = [(SignalInfo(name, bus, None, Kind.UINT, 8, 1.0, 0.0), {}) for bus, name in signals]
    names = SignalNames([SignalTable("", tuple(described))])
    unknown = {name: names.suggest(name) for name in names_in(campaign) if not names.knows(name)}
    if campaign.condition is not None:
        # How often the condition is true can only be found from frames.
        basis = "it sends when its condition triggers; give --log and --dbc"
        return Cost(campaign.name, model, basis, None, unknown, least_ring_bytes(campaign))
    per_second = sum(
        _thinned(rates.per_second[signals[place.signal]], rule, campaign.period_ms)
        for place, rule in rules_of(campaign, names).items()
    )
    # A batch costs its seal, and each window is at least one batch.
    sealed = SEAL_OVERHEAD_BYTES * 3_600_000 / campaign.period_ms if per_second else 0.0
    basis = f"{_span(rates.hours)} of {counted(rates.vehicles, 'vehicle')} in the lake"
    return Cost(campaign.name, model, basis, sealed + per_second * 3_600 * rates.bytes_per_sample, unknown)


def _span(hours: float) -> str:
    """Return from how much driving an estimate comes."""
    if hours >= 1.0:
        return f"from {hours:,.1f} h"
    return f"extrapolated from {hours * 60:,.0f} min" if hours >= 0.1 else f"extrapolated from {hours * 3_600:,.0f} s"


def _thinned(per_second: float, rule: SignalRule, period_ms: int) -> float:
    """Return how many of a signal's samples in a second the rule keeps at most."""
    kept = min(per_second, 1e9 / rule.interval_ns) if rule.interval_ns else per_second
    return kept if rule.max_samples is None else min(kept, rule.max_samples * 1_000 / period_ms)
