"""`fleet import`: take over documents of another system."""

import argparse
import json
from pathlib import Path
from typing import Final

from agent.errors import Permanent
from agent.system.arguments import add_command
from agent.system.durable import make_folder, write_file
from agent.system.words import counted
from fleet.commands.arguments import add_fleet_argument

SUMMARY: Final = "take over documents of AWS IoT FleetWise"
EXAMPLE: Final = "fleet import fleetwise campaigns/*.json decoders-*.json --out imported"
DESCRIPTION: Final = """\
Read documents of another system, and write documents of ours with a report. docs/guides/leave-fleetwise.md shows the
whole way."""
_FLEETWISE: Final = """\
Read campaigns, decoder manifests (decoders and network interfaces, in any number of files), signal catalogues (nodes or
a VSS tree in JSON), model manifests, vehicles and state templates of AWS IoT FleetWise. They may be requests
(--cli-input-json), answers of `aws iotfleetwise get-...` and `list-...`, or CloudFormation templates in JSON or YAML.

Write campaigns, databases (DBC), mappings of names and a list of vehicles into a new folder, and a report: what was
taken, what was taken with which difference, and what was refused and why. The exit status is 1 if a document was
refused; all others have been written then."""
_EPILOG: Final = "fleet import fleetwise campaigns/*.json decoders-*.json template.yaml --out imported"
_FILE_MODE: Final = 0o644


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each system."""
    systems = parser.add_subparsers(title="systems", metavar="SYSTEM", required=True)
    fleetwise = add_command(systems, "fleetwise", summary="AWS IoT FleetWise", description=_FLEETWISE, example=_EPILOG)
    add_fleet_argument(fleetwise, default=argparse.SUPPRESS)
    fleetwise.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the report as JSON")
    fleetwise.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a document, a list of them or a template"
    )
    fleetwise.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write; it must be new or empty"
    )


def run(args: argparse.Namespace) -> int:
    """Import the files, and return 1 if a document was refused."""
    from fleet.fleetwise.files import read_files
    from fleet.fleetwise.findings import Outcome, counts, text_of
    from fleet.fleetwise.takeover import Takeover

    out: Path = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Permanent(f"{out} is there already. Give a new folder, so that nothing in it is overwritten.")
    result = Takeover().take(read_files(args.files))
    found = counts(result.findings)
    values = {
        "documents": [
            {
                "outcome": finding.outcome,
                "file": finding.file,
                "place": finding.place,
                "kind": finding.kind,
                "name": finding.name,
                "remarks": [{"key": remark.key, "text": remark.text} for remark in finding.remarks],
            }
            for finding in result.findings
        ],
        "counts": found,
        "written": list(result.files),
    }
    text = text_of(result.findings)
    for path, content in {
        **result.files,
        "report.txt": f"{text}\n".encode(),
        "report.json": f"{json.dumps(values, indent=2)}\n".encode(),
    }.items():
        file = out / path
        make_folder(file.parent)
        write_file(file, content, mode=_FILE_MODE)
    if args.json:
        print(json.dumps(values))
    else:
        print(text)
        print(
            f"{counted(len(result.findings), 'document')}: {found['taken']} taken, {found['difference']} taken with a "
            f"difference, {found['refused']} refused. Written to {out}: {counted(len(result.files), 'file')}, and the "
            "report."
        )
    return 1 if found[Outcome.REFUSED] else 0
