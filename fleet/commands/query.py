"""`fleet query`: answer a question from the lake."""

import argparse
import json
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from agent.system.arguments import add_command, whole
from fleet.commands.arguments import EXAMPLE_VEHICLE, add_fleet_argument, add_lake_arguments, is_enrolled, lake_of
from fleet.commands.output import complain, table

if TYPE_CHECKING:
    from fleet.lake.query import Answer

_SQL: Final = "SELECT time, value FROM samples WHERE signal = 'VehicleMotion.Speed' ORDER BY time"

SUMMARY: Final = "answer a question from the lake"
EXAMPLE: Final = f'fleet query latest --vehicle {EXAMPLE_VEHICLE}\n  fleet query sql "{_SQL}"'
DESCRIPTION: Final = "Answer a question from the lake's tables samples, events and batches."

QUESTIONS: Final = {
    "signals": "list every signal with its number of samples, its range of values, and its first and last time",
    "latest": "show the newest value of every signal of every vehicle",
    "samples": "show the newest samples",
    "losses": "list losses that vehicles reported, and sequence numbers that are missing without a report",
    "ledger": "list all sequence numbers as stored, lost (with the reason), forked, twice (checkpoints of a stored "
    "window) or not explained yet",
    "events": "show the newest events",
    "toggles": "count for each day how often apps were given each variant of each toggle, and by how many vehicles",
    "batches": "count the received batches, samples and bytes for each vehicle and epoch",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet query`: a subcommand for each question."""
    add_lake_arguments(parser)
    questions = parser.add_subparsers(title="questions", metavar="QUESTION", dest="question", required=True)
    for name, summary in QUESTIONS.items():
        question = _add_question(questions, name, summary, f"{EXAMPLE_VEHICLE} --limit 20")
        question.add_argument("named", nargs="?", metavar="VEHICLE", help="show only rows of this vehicle")
        question.add_argument("--vehicle", metavar="VEHICLE", help="show only rows of this vehicle")
        question.add_argument(
            "--limit",
            type=whole(1, 1_000_000_000),
            default=1000,
            metavar="N",
            help="show at most N rows (default: %(default)s)",
        )
        if name == "samples":
            question.add_argument(
                "--corrected",
                action="store_true",
                help="correct the times of samples that were stamped before the vehicle's clock was set "
                "(docs/decisions/0009)",
            )
    sql = _add_question(questions, "sql", "answer a question in DuckDB's SQL", f'"{_SQL}"')
    sql.add_argument("sql", metavar="SQL", help="the question in SQL")


def run(args: argparse.Namespace) -> int:
    """Print the answer as a table or as a JSON array of objects."""
    vehicle, limit = (None, None) if args.question == "sql" else (args.named or args.vehicle, args.limit)
    answer = _answer(args, vehicle)
    if vehicle is not None and not answer.rows and not is_enrolled(args.fleet, vehicle):
        raise Permanent(
            f"The lake has no rows for vehicle {vehicle}, and no such vehicle is enrolled in {args.fleet}. "
            "Check the name of the vehicle."
        )
    if len(answer.rows) == limit:
        complain(f"Only {limit} rows are shown, and there may be more. To see more rows, give a larger --limit.")
    if args.json:
        print(json.dumps([dict(zip(answer.columns, row, strict=True)) for row in answer.rows], default=str))
    else:
        print(table(answer.columns, answer.rows))
    return 0


def _answer(args: argparse.Namespace, vehicle: str | None) -> "Answer":
    from fleet.lake.ledger import ledger
    from fleet.lake.query import ask, ask_sql

    lake = lake_of(args)
    if args.question == "sql":
        return ask_sql(lake, args.sql)
    if args.question in {"losses", "ledger"}:
        return ledger(lake, vehicle=vehicle, limit=args.limit, stored=args.question == "ledger")
    question = "corrected" if getattr(args, "corrected", False) else args.question
    return ask(lake, question, vehicle=vehicle, limit=args.limit)


def _add_question(
    questions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    parser = add_command(
        questions,
        name,
        summary=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        example=f"fleet query {name} {example}",
    )
    # These options may stand before or after the question.  SUPPRESS keeps a value that was given before the question.
    add_fleet_argument(parser, default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the answer as JSON")
    add_lake_arguments(parser, default=argparse.SUPPRESS)
    return parser
