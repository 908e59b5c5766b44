"""`fleet publish`: check, sign and publish documents, and nudge connected vehicles."""

import argparse
import asyncio
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, Permanent, Transient
from agent.formats.down.audience import Audience, joined, parse_audience
from agent.formats.down.documents import KINDS
from agent.system.arguments import whole
from fleet.commands import campaign_estimates, preview, publish_own
from fleet.commands.arguments import address
from fleet.commands.output import report
from fleet.commands.publish_own import is_own, run_own
from fleet.publishing import repository
from fleet.publishing.nudge import nudge
from fleet.publishing.publish import EXPIRY_DAYS, Draft, Publication, Published, draft, publish
from fleet.rollout.book import documents_in_rollout
from fleet.state.folder import FleetFolder

NAMED: Final = 10
"""The greatest number of vehicles that the result names."""

SUMMARY: Final = "sign and publish toggles, settings, databases and campaigns"
EXAMPLE: Final = "fleet publish --toggles toggles.json --broker localhost:8884"
DESCRIPTION: Final = """\
Check, sign and publish toggles, settings, databases and campaigns. Vehicles fetch them when they connect or when
--broker notifies them.
If no document changes, the command only renews the signature, which shows vehicles that the repository is current."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet publish`: an option for each kind of document, and the options of publishing."""
    for kind in KINDS:
        parser.add_argument(
            f"--{kind.name}", type=Path, action="append", metavar="FILE", help=f"{kind.help}; may be repeated"
        )
        parser.add_argument(
            f"--remove-{kind.name}",
            action="append",
            metavar="NAME",
            help=f"stop publishing this {kind.name} document; may be repeated",
        )
    parser.add_argument(
        "--audience",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="give the documents only to these vehicles; keys: brand, model, market, model_year, software, vehicle, "
        "percent. A vehicle must match every key, and one of the values of a key that is given several times. A "
        "semicolon, or another --audience with the same keys, begins a further rule, and a vehicle needs to match only "
        "one",
    )
    publish_own.add_arguments(parser)
    parser.add_argument(
        "--expiry-days",
        type=whole(1, repository.DOCUMENT_DAYS),
        default=EXPIRY_DAYS,
        metavar="N",
        help="days for which vehicles accept this signature; publish again within this time (default: %(default)s)",
    )
    parser.add_argument(
        "--broker",
        type=address,
        metavar="HOST:PORT",
        help="notify connected vehicles through this broker, at its PORT for the fleet's programs",
    )
    preview.add_arguments(parser)
    campaign_estimates.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Publish the documents that `args` name, print the result, and return the exit status.

    Raises: Permanent if a document or an argument is wrong; Transient if another publisher is at work, or if the
    documents were published but the vehicles could not be notified.
    """
    folder = FleetFolder(args.fleet).require()
    files = [(kind.name, file) for kind in KINDS for file in _given(args, kind.name)]
    remove = [(kind.name, name) for kind in KINDS for name in _given(args, f"remove_{kind.name}")]
    if is_own(args):
        return run_own(args, files, remove)
    audience = _audience(args.audience)
    if audience and not files:
        options = " or ".join(f"--{kind.name}" for kind in KINDS)
        raise Permanent(f"--audience is given without a document. Please also give {options}.")
    publication = Publication(files, remove, audience, staged=documents_in_rollout(folder))
    made = draft(folder, publication)
    warnings = preview.warn(made, audience)
    preview.tell_notes(args, made.notes)
    preview.show(args, made)
    costs, problems = campaign_estimates.costs_of(args, made)
    campaign_estimates.show(args, costs)
    campaign_estimates.refuse_large(args, costs)
    if args.dry_run:
        published = Published(made.state.versions, tuple(made.after), made.bundle_bytes)
    else:
        preview.approve(args, made)
        now = datetime.now(UTC)
        published = publish(folder, publication, now=now, expiry_days=args.expiry_days, approved=made)
        if args.broker is not None:
            _nudge(folder, args.broker, published)
    told = [*warnings, *made.notes, *problems]
    _report(args, made, published, {"campaigns": [cost.as_dict() for cost in costs], "warnings": told})
    return 0


def _report(args: argparse.Namespace, made: Draft, published: Published, found: Mapping[str, object]) -> None:
    """Print the result.  `found` has what else is known about the publication, by its name in JSON."""
    versions = published.versions
    result: dict[str, object] = {
        "root": versions.root,
        "timestamp": versions.timestamp,
        "snapshot": versions.snapshot,
        "targets": versions.targets,
        "documents": list(published.targets),
        "bundle_bytes": published.bundle_bytes,
        "nudged": args.broker is not None and not args.dry_run,
    }
    lines = [f"{name}: {_text(value)}" for name, value in result.items()]
    if args.dry_run:
        lines = [
            f"Nothing was signed (--dry-run). Versions now: {', '.join(lines[:4])}.",
            "With this publication, there would be:",
            *lines[4:6],
        ]
    if made.new:
        reached = sorted({v for document in made.new for v in made.population.vehicles(*made.after[document.path])})
        enrolled = len(made.population)
        result |= {"reached": len(reached), "enrolled": enrolled, "vehicles": reached[:NAMED]}
        lines.append(_reached(reached, enrolled))
    result |= {
        "dry_run": args.dry_run,
        "changes": [change.as_dict(made.population) for change in made.changes],
        **found,
    }
    report(args, result, "\n".join(lines))


def _audience(options: Sequence[str]) -> Audience:
    """Return the audience of one or more `--audience` options.  A vehicle belongs to it if it matches one of them.

    Raises: Permanent if an option is wrong, or if several options name different keys.  A vehicle might then have to
    match all options or one of them.
    """
    rules = [rule for option in options for rule in parse_audience(option)]
    if len(options) > 1 and len({frozenset(rule) for rule in rules}) > 1:
        raise Permanent(
            "Several --audience options name different keys, so it is not clear whether a vehicle must match all of "
            f"them. If it must match all, write one option: --audience {shlex.quote(','.join(options))}. "
            f"If one of them is enough, write: --audience {shlex.quote(';'.join(options))}."
        )
    return joined(rules)


def _reached(vehicles: Sequence[str], enrolled: int) -> str:
    found = len(vehicles)
    if found == 0:
        return f"The documents are for none of the {enrolled:,} enrolled vehicles. Check --audience."
    more = f" and {found - NAMED:,} more" if found > NAMED else ""
    return f"The documents are for {found:,} of {enrolled:,} enrolled vehicles: {', '.join(vehicles[:NAMED])}{more}."


def _given(args: argparse.Namespace, option: str) -> list[Any]:
    """Return the values of `option` as a list.  The list is empty if the option was not given."""
    value = getattr(args, option, None)
    return value if isinstance(value, list) else [] if value is None else [value]


def _nudge(folder: FleetFolder, broker: tuple[str, int], published: Published) -> None:
    host, port = broker
    try:
        asyncio.run(nudge(folder, host, port))
    except AgentError as error:
        raise Transient(
            f"Version {published.versions.targets} is published, but the vehicles could not be notified ({error}). "
            "They fetch it when they connect next. To notify them earlier, remove the cause and run `fleet publish "
            "--broker HOST:PORT`, which needs no document."
        ) from error


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
