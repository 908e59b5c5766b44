"""`fleet publish`: check, sign and publish documents, and nudge connected vehicles."""

import argparse
import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, Permanent, Transient
from agent.formats.down.audience import AudienceLists, parse_audience
from agent.formats.down.documents import KINDS
from agent.system.arguments import whole
from fleet.commands import publish_own
from fleet.commands.arguments import address
from fleet.commands.output import complain, report
from fleet.commands.publish_own import is_own, run_own
from fleet.publishing import repository
from fleet.publishing.nudge import nudge
from fleet.publishing.publish import EXPIRY_DAYS, Published, publish
from fleet.publishing.reach import Reach, reach_of
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

NAMED: Final = 10
"""The greatest number of vehicles that the result names."""

SUMMARY: Final = "sign and publish toggles and campaigns"
EXAMPLE: Final = "fleet publish --toggles toggles.json --broker localhost:8884"
DESCRIPTION: Final = """\
Check, sign and publish toggles and campaigns. Vehicles fetch them when they connect or when --broker notifies them.
If no document changes, the command only renews the signature, which shows vehicles that the repository is current."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet publish`: an option for each kind of document, and the options of publishing."""
    for kind in KINDS:
        # A kind whose documents have names allows several documents, so its option may be repeated.
        option, several = f"--{kind.name}", kind.name_of is not None
        parser.add_argument(
            option,
            type=Path,
            action="append" if several else "store",
            metavar="FILE",
            help=f"{kind.help}; may be repeated" if several else kind.help,
        )
        if several:
            parser.add_argument(
                f"--remove-{kind.name}",
                action="append",
                metavar="NAME",
                help=f"stop publishing this {kind.name}; may be repeated",
            )
    parser.add_argument(
        "--audience",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="give the documents only to these vehicles; keys: brand, model, market, model_year, vehicle. A vehicle "
        "must match every key, and one of the values of a key that is given several times",
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
        raise Permanent(f"--audience selects the vehicles for documents. Please also give {options}.")
    published = publish(
        folder,
        files=files,
        remove=remove,
        audience=audience,
        expiry_days=args.expiry_days,
        now=datetime.now(UTC),
    )
    if args.broker is not None:
        _nudge(folder, args.broker, published)
    reach = reach_of(Registry(folder.vehicles), audience) if files else None
    versions = published.versions
    result = {
        "root": versions.root,
        "timestamp": versions.timestamp,
        "snapshot": versions.snapshot,
        "targets": versions.targets,
        "documents": list(published.targets),
        "bundle_bytes": published.bundle_bytes,
        "nudged": args.broker is not None,
    }
    lines = [f"{name}: {_text(value)}" for name, value in result.items()]
    if reach is not None:
        result |= {"reached": len(reach.vehicles), "enrolled": reach.enrolled, "vehicles": reach.vehicles[:NAMED]}
        lines.append(_reached(reach))
        for problem in reach.unreadable:
            complain(problem)
    report(args, result, "\n".join(lines))
    return 0


def _audience(options: Sequence[str]) -> AudienceLists:
    """Return the audience of one or more `--audience` options.

    Raises: Permanent if an option is wrong, or if several options name different keys.  A vehicle might then have to
    match all options or one of them.
    """
    each = [parse_audience(option) for option in options]
    keys = {key for lists in each for key in lists}
    if len(each) > 1 and len(keys) > 1:
        joined = ",".join(options)
        raise Permanent(
            "Several --audience options name different keys, so it is not clear whether a vehicle must match all of "
            f"them. If it must, write one option: --audience {joined}. Otherwise publish a document for each audience."
        )
    return parse_audience(",".join(options))


def _reached(reach: Reach) -> str:
    found = len(reach.vehicles)
    if found == 0:
        return f"The documents are for none of the {reach.enrolled:,} enrolled vehicles. Check --audience."
    more = f" and {found - NAMED:,} more" if found > NAMED else ""
    names = ", ".join(reach.vehicles[:NAMED])
    return f"The documents are for {found:,} of {reach.enrolled:,} enrolled vehicles: {names}{more}."


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
            f"They fetch it when they connect next. To notify them now, run `fleet publish --broker {host}:{port}`."
        ) from error


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
