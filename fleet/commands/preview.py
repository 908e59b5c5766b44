"""Shows what a publication changes, and asks whether to sign it."""

import argparse
import sys
from collections.abc import Sequence

from agent.errors import Permanent
from agent.formats.down.audience import Audience
from agent.formats.down.documents import Document
from agent.system.arguments import add_strict
from agent.system.command_line import printable
from fleet.commands.output import complain
from fleet.publishing.changes import in_words
from fleet.publishing.publish import Draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to approve a publication."""
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and show what changes, but sign nothing"
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="sign without asking; without a terminal, this is needed only if vehicles lose a document "
        "whose removal you did not ask for",
    )
    add_strict(parser)


def warn(made: Draft, audience: Audience) -> list[str]:
    """Print and return warnings about the audience and the registry."""
    warnings = [*made.population.unreadable]
    if len(made.population):
        warnings += made.population.misspelt(audience)
    for warning in warnings:
        complain(warning)
    return warnings


def tell_notes(args: argparse.Namespace, notes: Sequence[str]) -> None:
    """Print what vehicles repair or leave out in new databases.  Raises: Permanent if `--strict` was given."""
    for note in notes:
        complain(note)
    if args.strict and notes:
        raise Permanent("The databases have the mistakes listed above. Correct them, or leave out --strict.")


def show(args: argparse.Namespace, made: Draft) -> None:
    """Print what changes in words, unless the result is printed as JSON."""
    if not args.json:
        for change in made.changes:
            print("\n".join(map(printable, change.lines(made.population))))


def _reaches(made: Draft, document: Document) -> bool:
    return bool(made.population.vehicles(*made.after[document.path]))


def ask(question: str) -> None:
    """Ask `question` on a terminal.  Raises: Permanent if the answer is not yes."""
    # The question goes to standard error, because standard output may be a JSON document for another program.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Permanent("Nothing was published, because the question was not answered with yes.")


def approve(args: argparse.Namespace, made: Draft) -> None:
    """Ask on a terminal whether to sign.  Without a terminal, approve everything that takes no document away.

    Raises: Permanent if the publication is not approved.
    """
    if args.yes or not made.changes:
        return
    if args.audience and len(made.population) and not any(_reaches(made, document) for document in made.new):
        raise Permanent(
            f"The documents are for none of the {len(made.population):,} enrolled vehicles. Nothing was published. "
            "Check --audience, or give --yes if the vehicles will be enrolled later."
        )
    if sys.stdin.isatty():
        ask("Sign and publish this?")
        return
    if made.taken_away:
        losses = "; ".join(
            f"{change.document} from {in_words(change.lost, made.population)}" for change in made.taken_away
        )
        raise Permanent(
            f"This publication would take documents away: {losses}. Nothing was published. Publish the document under "
            "a name of its own or for a wider --audience, or give --yes if these vehicles are to lose it."
        )
