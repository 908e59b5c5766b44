"""The part of `fleet publish` that gives documents to single vehicles: the options --vehicle and --individual."""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.errors import AgentError, Permanent, Transient
from agent.formats.down.documents import KINDS, kind_of
from agent.formats.topics import is_vehicle
from fleet.commands import preview
from fleet.commands.output import complain, report
from fleet.publishing.nudge import nudge
from fleet.publishing.own_documents import Change, publish_own
from fleet.state.folder import FleetFolder

EVERY: Final = 1_000
"""After this many vehicles, a line on standard error shows the progress."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select single vehicles."""
    parser.add_argument(
        "--vehicle",
        action="append",
        default=[],
        metavar="NAME",
        help="give the documents only to the vehicle with this pseudonym; may be repeated. They take the place of "
        "documents of the same name that are for all vehicles. With --remove-..., remove its own documents",
    )
    parser.add_argument(
        "--individual",
        type=Path,
        metavar="DIR",
        help="give each vehicle documents of its own: DIR/NAME/toggles.json, DIR/NAME/campaigns/FILE.json, where NAME "
        "is the vehicle's pseudonym",
    )


def is_own(args: argparse.Namespace) -> bool:
    """Return whether `args` give documents to single vehicles."""
    return bool(args.vehicle) or args.individual is not None


def run_own(args: argparse.Namespace, files: Sequence[tuple[str, Path]], remove: Sequence[tuple[str, str]]) -> int:
    """Publish `files` for single vehicles, or remove them, print the result, and return the exit status.

    Raises: as `fleet.commands.publish.run`.
    """
    if args.audience:
        raise Permanent("--audience and --vehicle or --individual exclude each other. Please give one of them.")
    if bool(args.vehicle) == (args.individual is not None):
        raise Permanent("--vehicle and --individual exclude each other. Please give one of them.")
    if args.vehicle and not files and not remove:
        options = " or ".join(f"--{kind.name}" for kind in KINDS)
        raise Permanent(f"--vehicle is given without a document. Please also give {options}.")
    if args.individual is not None and (files or remove):
        raise Permanent("--individual takes its documents from the folder. Please give no other documents.")
    folder = FleetFolder(args.fleet).require()
    changes = _individual(args.individual) if args.individual else dict.fromkeys(args.vehicle, Change(files, remove))
    if not args.dry_run and not args.yes and sys.stdin.isatty():
        preview.ask(f"Sign and publish documents for {_vehicles(changes)}?")
    versions = publish_own(
        folder,
        changes,
        now=datetime.now(UTC),
        expiry_days=args.expiry_days,
        progress=_show_progress,
        dry_run=args.dry_run,
        noted=lambda notes: preview.tell_notes(args, notes),
    )
    if args.broker is not None and not args.dry_run:
        _nudge(folder, args.broker)
    result = {
        "root": versions.root,
        "timestamp": versions.timestamp,
        "snapshot": versions.snapshot,
        "targets": versions.targets,
        "vehicles": len(changes),
        "dry_run": args.dry_run,
        "nudged": args.broker is not None and not args.dry_run,
    }
    lines = [f"{name}: {value}" for name, value in result.items()]
    if args.dry_run:
        what = "The present versions, and the number of vehicles that would get documents:"
        lines = [f"Nothing was signed (--dry-run). {what}", *lines]
    report(args, result, "\n".join(lines))
    return 0


def _individual(folder: Path) -> Mapping[str, Change]:
    """Return the documents in a folder that has a folder for each vehicle.  Raises: Permanent naming what is wrong."""
    try:
        vehicles = sorted(path for path in folder.iterdir() if path.is_dir())
        found = {path.name: sorted(file for file in path.rglob("*") if file.is_file()) for path in vehicles}
    except OSError as error:
        raise Permanent(f"{folder} cannot be read ({error.strerror}). Check the path and its permissions.") from error
    changes = {}
    for vehicle, files in found.items():
        if not is_vehicle(vehicle):
            raise Permanent(f"{folder / vehicle}: the folder must be named by a pseudonym that `fleet enrol` printed.")
        changes[vehicle] = Change([(_kind_name(file, folder / vehicle), file) for file in files])
    if not any(change.files for change in changes.values()):
        raise Permanent(f"{folder} has no documents. Put them into folders like {folder}/PSEUDONYM/campaigns/x.json.")
    return changes


def _kind_name(file: Path, root: Path) -> str:
    kind = kind_of(file.relative_to(root).as_posix(), KINDS)
    if kind is None:
        patterns = ", ".join(kind.pattern for kind in KINDS)
        raise Permanent(f"{file}: no kind of document has such a path. Paths of documents: {patterns}.")
    return kind.name


def _vehicles(changes: Mapping[str, Change]) -> str:
    names = list(changes)
    return f"the vehicle {names[0]}" if len(names) == 1 else f"{len(names):,} vehicles"


def _show_progress(done: int, of: int) -> None:
    if of > EVERY and (done % EVERY == 0 or done == of):
        complain(f"checked the documents of {done:,} of {of:,} vehicles")


def _nudge(folder: FleetFolder, broker: tuple[str, int]) -> None:
    host, port = broker
    try:
        asyncio.run(nudge(folder, host, port))
    except AgentError as error:
        raise Transient(
            f"The documents are published, but the vehicles could not be notified ({error}). They fetch them when they "
            f"connect next. To notify them now, run `fleet publish --broker {host}:{port}`."
        ) from error
