"""Play all cases of the TUF conformance suite through the real verifier process, and write build/conformance.json.

Exit status: 0 if every case is met or differs by intent, 1 if not, 2 for wrong use.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from agent.pushes.examine import examine
from tests.conformance.case import Case, Row
from tests.conformance.table import CASES

REPORT = Path("build/conformance.json")
GOOD = ("as expected", "differs", "not played")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--case", default="", metavar="TEXT", help="play only cases whose name contains TEXT")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.case in case.name]
    if not chosen:
        print(f"make conformance: no case has {options.case!r} in its name", file=sys.stderr)
        return 2
    started_s = time.monotonic()
    rows = [_play(number, case, len(chosen)) for number, case in enumerate(chosen, 1)]
    counts = Counter(row.result for row in rows)
    passed = counts.keys() <= set(GOOD)
    result = {
        "passed": passed,
        "suite": "https://github.com/theupdateframework/tuf-conformance (its cases, written again)",
        "cases": len(rows),
        "results": dict(counts),
        "bad_updates_accepted": counts["fails"],
        "seconds": round(time.monotonic() - started_s, 1),
        "rows": [asdict(row) for row in rows],
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(f"{row.result:12} {row.case}{f' ({row.reason})' if row.reason else ''}")
    summary = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    print(f"{'PASSED' if passed else 'FAILED'}: {len(rows)} cases: {summary}; the table is {REPORT}")
    return 0 if passed else 1


def _play(number: int, case: Case, of: int) -> Row:
    if sys.stderr.isatty():
        print(f"\r{number}/{of} ", end="", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="hu-conformance-") as folder:
        return case.run(Path(folder), examine)


if __name__ == "__main__":
    sys.exit(main())
