"""`fleet`: the cloud side's command line.  Exit status 0 success, 1 the work failed, 2 wrong use,
130 interrupted.

Parses arguments, calls one function, prints its result.  What needs the `fleet` extra (deltalake, duckdb,
pyarrow) is imported by the commands that use it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS
from agent.system.command_line import ended, printable
from fleet import arguments
from fleet.arguments import whole
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder

if TYPE_CHECKING:
    from fleet.lake.tables import Location

_EXTRA: Final = {"deltalake", "duckdb", "pyarrow"}
QUESTIONS: Final = ("signals", "latest", "samples", "losses", "ledger", "events", "batches")
_DAYS: Final = 15 * 365
MOST_DAYS: Final = 100 * 365

_VEHICLE: Final = "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11"
_SQL: Final = "SELECT time, value FROM samples WHERE signal = 'VehicleMotion.Speed' ORDER BY time"

_INIT = """\
Create a fleet: every key it will ever need, the certificates of broker and receiver, the push repository.

Take OFFLINE afterwards (for example to two encrypted sticks in two safes), and delete from this folder:
  keys/root1.pem keys/root2.pem keys/root3.pem   whoever holds two of them can replace every other push key.
                                                 Needed only to change keys; keep them apart from one another.
  keys/ca.key.pem                                whoever holds it can enrol vehicles and pose as the broker.
                                                 Needed for `fleet enrol`: keep it where you enrol, nowhere else.
Keep a BACKUP of keys/hpke.json: without it nobody opens the telemetry that waits in vehicles. Whoever steals it reads
all telemetry. The other keys work online: targets, snapshot and timestamp for `fleet publish`, acks and hpke for
`fleet receive`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    return ended(lambda: _command_of(argv), _complain)


def _command_of(argv: Sequence[str] | None) -> int:
    from agent.system.log import configure

    args = _parser().parse_args(argv)
    configure("debug" if getattr(args, "verbose", False) else "info")
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise Permanent(f"{error.name} is not installed: pip install 'headunit-agent[fleet]'") from error


def _complain(problem: object) -> None:
    """As many lines as it has: SQL is pointed at, and the end of a program's log is a list."""
    print("\n".join(printable(line) for line in f"fleet: {problem}".splitlines()), file=sys.stderr)


def _init(args: argparse.Namespace) -> int:
    from fleet.admin.create import create_fleet

    folder = FleetFolder(args.fleet)
    create_fleet(folder, suite=args.suite, broker_names=args.broker_name, now=datetime.now(UTC))
    names = ["localhost", "127.0.0.1", *args.broker_name]
    _report(
        args,
        {"fleet": str(args.fleet), "suite": args.suite, "broker_names": names},
        f"fleet created in {args.fleet}; now read `fleet init --help` on what to take offline",
    )
    return 0


def _enrol(args: argparse.Namespace) -> int:
    from fleet.admin.enrol import Model, enrol

    model = Model(args.brand, args.model, args.market, args.model_year)
    record = enrol(FleetFolder(args.fleet), args.out, model, days=args.days, now=datetime.now(UTC), csr=args.csr)
    _report(
        args,
        {"vehicle": record.vehicle, "partition": record.partition, "out": str(args.out)},
        f"vehicle {record.vehicle} (partition {record.partition}) enrolled; its folder is {args.out}",
    )
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from fleet.state.registry import Registry

    record = Registry(FleetFolder(args.fleet).require().vehicles).revoke(args.vehicle)
    _report(
        args,
        {"vehicle": record.vehicle, "revoked": True},
        f"vehicle {record.vehicle} is revoked: the receiver refuses its batches from now on",
    )
    return 0


def _publish(args: argparse.Namespace) -> int:
    from fleet.publishing import publish

    result = publish.run(args, FleetFolder(args.fleet).require())
    _report(args, result, "\n".join(f"{name}: {_text(value)}" for name, value in result.items()))
    return 0


def _receive(args: argparse.Namespace) -> int:
    from fleet.receiving.receiver import receive

    host, port = args.broker
    fleet = FleetFolder(args.fleet)
    totals = receive(fleet, host, port, args.partitions, _lake(args))
    counts = asdict(totals)
    _report(args, counts, ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from lab.simulate.figures import Plan
    from lab.simulate.report import render
    from lab.simulate.run import simulate

    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.out.is_dir() or not os.access(args.out.parent, os.W_OK):  # told now, not after the work
            raise Permanent(f"--out {args.out}: cannot be written; name a file in a folder of yours")
    given = None if args.broker is None else (FleetFolder(args.fleet), *args.broker)
    figures = simulate(Plan(args.vehicles, args.minutes, args.period, args.receivers), given)
    if args.out is not None:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
    _report(args, figures, render(figures))
    return 0 if figures["passed"] else 1


def _query(args: argparse.Namespace) -> int:
    from fleet.lake.ledger import ledger
    from fleet.lake.query import ask, ask_sql

    lake = _lake(args)
    vehicle, limit = (None, None) if args.question == "sql" else (args.named or args.vehicle, args.limit)
    if args.question == "sql":
        answer = ask_sql(lake, args.sql)
    elif args.question in {"losses", "ledger"}:
        answer = ledger(lake, vehicle=vehicle, limit=args.limit, stored=args.question == "ledger")
    else:
        asked = "corrected" if getattr(args, "corrected", False) else args.question
        answer = ask(lake, asked, vehicle=vehicle, limit=args.limit)
    if vehicle is not None and not answer.rows and _unknown(args.fleet, vehicle):
        raise Permanent(
            f"the lake has no answer for vehicle {vehicle}, and no such vehicle is enrolled in {args.fleet}"
        )
    if len(answer.rows) == limit:
        _complain(f"no more than {limit} shown (--limit); there may be more")
    if args.json:
        print(json.dumps([dict(zip(answer.columns, row, strict=True)) for row in answer.rows], default=str))
    else:
        print(_table(answer.columns, answer.rows))
    return 0


def _compact(args: argparse.Namespace) -> int:
    from fleet.lake.compact import Work, compact, retention_of

    if args.keep_days is None and (args.campaign or args.vehicle):
        raise Permanent("--campaign and --vehicle say what --keep-days deletes: give that, too")
    if args.vehicle is not None and _unknown(args.fleet, args.vehicle):
        raise Permanent(f"no vehicle {args.vehicle} is enrolled in {args.fleet}: nothing would be deleted")
    retention = None
    if args.keep_days is not None:
        today = datetime.now(UTC).date()
        retention = retention_of(args.keep_days, today, campaign=args.campaign, vehicle=args.vehicle)
    work = Work(args.target_mb * 1_000_000, args.unneeded_hours, retention, args.dry_run)
    tables = compact(_lake(args), work, lambda text: print(f"  {text} ...", file=sys.stderr))
    if args.json:
        print(json.dumps(tables))
    else:
        print(_table(tuple(tables[0]), [tuple(table.values()) for table in tables]))
    return 0


def _unknown(fleet: Path, vehicle: str) -> bool:
    """Whether nobody of that name was ever enrolled: a misspelt name must not look like one without data."""
    from fleet.state.registry import Registry

    return Registry(FleetFolder(fleet).vehicles).find(vehicle) is None


def _lake(args: argparse.Namespace) -> "Location":
    """Where the lake is: the fleet folder's own, or as the command line says."""
    from fleet.lake.tables import read_location

    own = str(FleetFolder(args.fleet).require().lake)
    return read_location(args.lake or own, args.lake_options)


def _parser() -> argparse.ArgumentParser:
    from fleet.publishing.publish import add_arguments as add_publish_arguments

    parser = argparse.ArgumentParser(
        prog="fleet",
        description="The cloud side of headunit-agent: keys, vehicles, pushes, telemetry.",
        epilog="'fleet COMMAND --help' shows each command with an example.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = _command(
        commands,
        "init",
        _init,
        summary="create a fleet",
        description=_INIT,
        example="fleet init --broker-name mqtt.example.com",
    )
    init.add_argument(
        "--suite",
        choices=("MLKEM768_X25519", "X25519"),
        default="MLKEM768_X25519",
        help="HPKE key of the fleet: hybrid post-quantum, 1,136 bytes a batch (default), or classical, 48 bytes",
    )
    init.add_argument(
        "--broker-name",
        type=arguments.host_name,
        metavar="NAME",
        action="append",
        default=[],
        help="host name or address of the broker, besides localhost and 127.0.0.1; may be repeated",
    )

    enrol = _command(
        commands,
        "enrol",
        _enrol,
        summary="enrol a vehicle",
        description="Give a vehicle a random pseudonym, a key and a certificate; write all it needs into one folder.\n"
        "The pseudonym says nothing about the car; keep the link to its VIN elsewhere, if you need it.",
        example="fleet enrol --out vehicles/one --brand Demo --model Hatch --market EU --model-year 2026",
    )
    enrol.add_argument("--out", type=Path, required=True, metavar="DIR", help="the vehicle folder, new or empty")
    enrol.add_argument("--brand", default="unknown", metavar="TEXT", help="what pushes may select by")
    enrol.add_argument("--model", default="unknown", metavar="TEXT", help="likewise")
    enrol.add_argument("--market", default="unknown", metavar="TEXT", help="likewise, for example EU")
    enrol.add_argument(
        "--model-year", type=whole(1900, 9999), default=datetime.now(UTC).year, metavar="YEAR", help="likewise"
    )
    enrol.add_argument(
        "--days", type=whole(1, MOST_DAYS), default=_DAYS, metavar="N", help="validity of the certificate (%(default)s)"
    )
    enrol.add_argument(
        "--csr",
        type=Path,
        metavar="FILE",
        help="signing request (PEM, EC P-256) of a key that stays in the device; the folder then holds no key",
    )

    revoke = _command(
        commands,
        "revoke",
        _revoke,
        summary="refuse a vehicle from now on",
        description="Mark a vehicle as revoked: the receiver refuses and quarantines its batches. What it sent stays.",
        example=f"fleet revoke {_VEHICLE}",
    )
    revoke.add_argument("vehicle", metavar="VEHICLE", help="its pseudonym")

    publish = _command(
        commands,
        "publish",
        _publish,
        summary="sign toggles and campaigns",
        description="Check, sign and publish toggles and campaigns; vehicles fetch them on connect or when nudged.\n"
        "Without a document it signs the repository anew, so that vehicles know it to be current.",
        example="fleet publish --toggles toggles.json --broker localhost:8883",
    )
    add_publish_arguments(publish)

    receive = _command(
        commands,
        "receive",
        _receive,
        summary="take telemetry into the lake",
        description="Verify, open, de-duplicate and store what vehicles send, acknowledge it, and answer their\n"
        "questions for pushes. Runs until SIGTERM, and tries a lost broker again for ever. Killed at any moment, it\n"
        "goes on without loss.",
        example="fleet receive --broker mqtt.example.com:8883 --partitions 0-3/16",
    )
    receive.add_argument(
        "--broker",
        type=arguments.address,
        default=("localhost", 8883),
        metavar="HOST:PORT",
        help="default localhost:8883",
    )
    receive.add_argument(
        "--partitions",
        type=arguments.share,
        default=Share(),
        metavar="A-B/16",
        help="which vehicles to serve, where several receivers share the fleet (default all)",
    )
    _lake_arguments(receive)
    receive.add_argument("--verbose", action="store_true", help="log every commit")

    simulate = _command(
        commands,
        "simulate",
        _simulate,
        summary="many virtual vehicles against real broker and receivers",
        description="Enrol N virtual vehicles and let them send for M minutes: own keys, own TLS connections, real\n"
        "sealing. Without --broker against a fleet, a broker and receivers made for it on loopback, all removed\n"
        "afterwards; with --broker against those of --fleet, where the vehicles are revoked afterwards. Says what it\n"
        "took and what larger fleets would need; fails where the lake lacks a sample or holds one twice.",
        example="fleet simulate --vehicles 2000 --minutes 2 --out build/simulate.json",
    )
    simulate.add_argument("--vehicles", type=whole(1, 1_000_000), required=True, metavar="N")
    simulate.add_argument("--minutes", type=arguments.positive, default=2.0, metavar="M", help="(%(default)g)")
    simulate.add_argument(
        "--period",
        type=arguments.positive,
        default=30.0,
        metavar="S",
        help="seconds between the batches of a vehicle (%(default)g: with it two cores carry 2,000 vehicles)",
    )
    simulate.add_argument(
        "--receivers", type=whole(1, PARTITIONS), default=1, metavar="R", help="1 to 16 (%(default)s)"
    )
    simulate.add_argument("--broker", type=arguments.address, metavar="HOST:PORT", help="of the fleet in --fleet")
    simulate.add_argument("--out", type=Path, metavar="FILE", help="write the report there as JSON, too")

    compaction = _command(
        commands,
        "compact",
        _compact,
        summary="keep the lake in shape",
        description="Join small files, delete samples beyond --keep-days, and delete files that nothing has needed\n"
        "for --unneeded-hours. Beside running receivers, as often as you like. The table of batches and the losses\n"
        "stay whole: they hold no measured value, and are what explains every sequence number. Days before 2020 are\n"
        "those of vehicles whose clock was not set; --keep-days leaves them.",
        example="fleet compact --keep-days 90 --dry-run",
    )
    _lake_arguments(compaction)
    compaction.add_argument(
        "--target-mb",
        type=whole(1, 1_000_000),
        default=128,
        metavar="MB",
        help="size that files are joined up to (%(default)s)",
    )
    compaction.add_argument(
        "--keep-days", type=whole(1, MOST_DAYS), metavar="N", help="delete samples of earlier days (UTC)"
    )
    compaction.add_argument("--campaign", metavar="NAME", help="with --keep-days: only samples of this campaign")
    compaction.add_argument("--vehicle", metavar="VEHICLE", help="with --keep-days: only those of this vehicle")
    compaction.add_argument(
        "--unneeded-hours",
        type=whole(1, MOST_DAYS * 24),
        default=168,
        metavar="H",
        help="how long files that were replaced stay, for queries that still read them (%(default)s)",
    )
    compaction.add_argument("--dry-run", action="store_true", help="only say what would be done")

    query = _command(
        commands,
        "query",
        _query,
        summary="ask the lake",
        description="Answer a question over the tables samples, events and batches.",
        example=f'fleet query latest --vehicle {_VEHICLE}\n  fleet query sql "{_SQL}"',
    )
    _lake_arguments(query)
    questions = query.add_subparsers(title="questions", metavar="QUESTION", dest="question", required=True)
    helps = {
        "signals": "every signal: how many samples, when, in what range",
        "latest": "the newest value of every signal of every vehicle",
        "samples": "the newest samples",
        "losses": "what vehicles reported as lost, by sequence numbers, and what is neither here nor reported",
        "ledger": "every sequence number: stored, replaced, lost and why, or not explained yet",
        "events": "the newest events",
        "batches": "per vehicle: batches, samples, bytes on the air",
    }
    for name in QUESTIONS:
        question = _question(questions, name, helps[name], f"{_VEHICLE} --limit 20")
        question.add_argument("named", nargs="?", metavar="VEHICLE", help="only this one")
        question.add_argument("--vehicle", metavar="VEHICLE", help="likewise")
        question.add_argument(
            "--limit", type=whole(1, 1_000_000_000), default=1000, metavar="N", help="rows at most (%(default)s)"
        )
        if name == "samples":
            question.add_argument(
                "--corrected",
                action="store_true",
                help="with times put right where the vehicle's clock was not set yet (docs/decisions/0009)",
            )
    sql = _question(questions, "sql", "any question in DuckDB's SQL", f'"{_SQL}"')
    sql.add_argument("sql", metavar="SQL")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fleet", type=Path, default=Path("fleet-state"), metavar="DIR", help="the fleet folder (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    parser.set_defaults(command=run)
    return parser


def _lake_arguments(command: argparse.ArgumentParser, default: object = None) -> None:
    command.add_argument(
        "--lake",
        metavar="URL",
        default=default,
        help="folder, s3://, abfss://, gs:// or file:// URL of the lake (default: lake in the fleet folder)",
    )
    command.add_argument(
        "--lake-options",
        type=Path,
        metavar="FILE",
        default=default,
        help="TOML file of the Delta library's storage options, besides the environment (AWS_*, AZURE_*, GOOGLE_*)",
    )


def _question(
    questions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    parser = questions.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  fleet query {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Also accepted after the question; without a default, so that one given before it stands.
    parser.add_argument("--fleet", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="the fleet folder")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer as JSON")
    _lake_arguments(parser, argparse.SUPPRESS)
    return parser


def _report(args: argparse.Namespace, values: Mapping[str, object], text: str) -> None:
    print(json.dumps(values) if args.json else text)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for a terminal: numbers right, the rest left."""
    cells = [["" if value is None else _cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    numeric = [
        bool(rows) and all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(columns)
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
