"""`fleet status`: compare the release that the fleet wants with what its vehicles report."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agent.system.arguments import whole
from agent.system.times import utc_text
from agent.system.words import counted
from fleet.commands.arguments import EXAMPLE_VEHICLE, add_lake_arguments, lake_of
from fleet.commands.output import report, table
from fleet.state.folder import FleetFolder

if TYPE_CHECKING:
    from fleet.rollout.standing import Standing, Summary

SUMMARY: Final = "compare the release that the fleet wants with what its vehicles report"
EXAMPLE: Final = f"fleet status {EXAMPLE_VEHICLE}"
DESCRIPTION: Final = """\
Show for the fleet, and for each vehicle that you name: the release wanted, the release in force, whether it is on
trial, what the vehicle refused and why, when it was last seen, the version of its agent, and when its certificate
expires. Vehicles report with receipts, which travel into the lake like telemetry. Without a name, the command counts
the whole fleet, and lists the vehicles that need attention."""

_COLUMNS: Final = ("vehicle", "state", "wanted", "release", "refused", "last_seen", "agent", "certificate_expires")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet status`."""
    parser.add_argument("vehicles", nargs="*", metavar="VEHICLE", help="show only these vehicles, with all details")
    parser.add_argument("--all", action="store_true", help="list every vehicle, not only those that need attention")
    parser.add_argument(
        "--limit",
        type=whole(0, 1_000_000_000),
        default=20,
        metavar="N",
        help="list at most N vehicles that need attention (default: %(default)s)",
    )
    add_lake_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the standing of the fleet or of the vehicles that `args` names."""
    from fleet.rollout.standing import needs_attention, standings, summary_of

    now = datetime.now(UTC)
    found = standings(FleetFolder(args.fleet).require(), lake_of(args), args.vehicles)
    if args.vehicles:
        report(args, {"vehicles": [_values(each) for each in found]}, "\n\n".join(map(_details, found)))
        return 0
    summary = summary_of(found, now)
    attention = [each for each in found if needs_attention(each, now)]
    listed = found if args.all else attention[: args.limit]
    text = _summary_text(summary)
    if listed:
        text += "\n\n" + table(_COLUMNS, [_row(each) for each in listed])
    if not args.all and len(attention) > len(listed):
        text += f"\n{len(attention) - len(listed):,} more vehicles need attention. To list more, give a larger --limit."
    values = {**_summary_values(summary), "attention": len(attention), "vehicles": [_values(each) for each in listed]}
    report(args, values, text)
    return 0


def _summary_values(summary: "Summary") -> dict[str, Any]:
    return {
        "wanted": summary.wanted,
        "enrolled": summary.vehicles,
        "states": {str(state): count for state, count in sorted(summary.states.items())},
        "releases": {str(release): count for release, count in sorted(summary.releases.items())},
        "agents": dict(sorted(summary.agents.items())),
        "refusals": dict(sorted(summary.reasons.items())),
        "certificates_expired": summary.expired,
        "certificates_expiring": summary.expiring,
        "silent": summary.silent,
        "sealing_to_earlier_key": summary.sealing_earlier,
    }


def _summary_text(summary: "Summary") -> str:
    from fleet.rollout.standing import EXPIRES_SOON_DAYS, SILENT_DAYS

    lines = [
        f"The fleet wants release {summary.wanted}, in {counted(summary.vehicles, 'vehicle')}.",
        f"state:        {_counts({state.replace('_', ' '): count for state, count in summary.states.items()})}",
        f"in force:     {_counts({f'release {release}' if release else 'none': count for release, count in summary.releases.items()})}",  # noqa: E501
        f"agent:        {_counts(summary.agents)}",
        f"certificates: {summary.expired:,} expired, {summary.expiring:,} expire within {EXPIRES_SOON_DAYS} days",
        f"silent:       {summary.silent:,} were last seen more than {SILENT_DAYS} days ago",
    ]
    if summary.sealing_earlier:
        lines.append(f"sealing key:  {summary.sealing_earlier:,} still seal to an earlier one (see fleet keys list)")
    if summary.reasons:
        lines.insert(2, f"refused:      {_counts(summary.reasons)}")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "nothing was reported yet"


def _values(standing: "Standing") -> dict[str, Any]:
    """Return the standing of a vehicle as JSON holds it.  What is not known is null."""
    enrolled, heard = standing.enrolled, standing.reported
    refused = None if heard is None else heard.refused
    return {
        "vehicle": standing.vehicle,
        "brand": enrolled.brand,
        "model": enrolled.model,
        "market": enrolled.market,
        "model_year": enrolled.model_year,
        "software": enrolled.software,
        "state": str(standing.state),
        "wanted": None if enrolled.revoked else standing.wanted,
        "release": None if heard is None else heard.release,
        "on_trial": None if heard is None else heard.on_trial,
        "refused": None
        if refused is None
        else {
            "version": refused.version,
            "reason": refused.reason,
            "detail": refused.detail,
            "received": utc_text(refused.at),
        },
        "last_seen": None if heard is None else utc_text(heard.last_seen),
        "agent": None if heard is None else heard.agent,
        "certificate_expires": None if enrolled.certificate_expires is None else utc_text(enrolled.certificate_expires),
        "seals_to_key_in_use": standing.seals_to_key_in_use,
    }


def _row(standing: "Standing") -> list[object]:
    values = _values(standing)
    if values["refused"] is not None:
        values["refused"] = _refusal_text(values["refused"], detail=False)
    return [values[column] for column in _COLUMNS]


def _details(standing: "Standing") -> str:
    values = _values(standing)
    if values["refused"] is not None:
        values["refused"] = _refusal_text(values["refused"], detail=True)
    if values["release"] == 0:
        values["release"] = "none"
    # The vehicle's own table is made by `table`, because texts that come from vehicles must not reach a terminal as
    # they are.
    return table(("what", "value"), [[name.replace("_", " "), _shown(value)] for name, value in values.items()])


def _refusal_text(refused: Mapping[str, Any], *, detail: bool) -> str:
    what = f"release {refused['version']}" if refused["version"] else "an untrusted bundle"
    return f"{what}: {refused['reason']}" + (f" ({refused['detail']}), {refused['received']}" if detail else "")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
