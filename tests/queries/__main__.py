"""Ask every question of `fleet query` as a process of its own, many times, and write build/queries.json.

Exit status: 0 if every process ended with status 0 in time and with the right rows, 1 if not, 2 for wrong use.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

from agent.system.arguments import whole
from tests.queries.ask import LIMIT_S, MEDIAN_S, End, ask_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="make queries", description=__doc__)
    parser.add_argument("--times", type=whole(1, 10_000), default=20, help="processes of each question (%(default)s)")
    parser.add_argument(
        "--fleet", type=Path, default=Path("build/demo/fleet"), help="fleet folder with a lake (%(default)s)"
    )
    options = parser.parse_args()
    lake = options.fleet / "lake"
    if not (lake / "samples").is_dir():
        print(f"make queries: there is no lake in {lake}; run `make demo`, or give --fleet", file=sys.stderr)
        return 2
    started_s = time.monotonic()
    ends: dict[str, list[End]] = {}
    for end in ask_all(options.fleet.resolve(), lake, options.times):
        ends.setdefault(end.question, []).append(end)
        if len(ends[end.question]) == options.times:
            print(line(end.question, ends[end.question]), flush=True)
    every = [end for of_question in ends.values() for end in of_question]
    seconds = [end.seconds for end in every]
    result = {
        "passed": all(end.status == 0 and end.right for end in every)
        and max(seconds) <= LIMIT_S
        and all(statistics.median(end.seconds for end in found) <= MEDIAN_S for found in ends.values()),
        "questions": len(ends),
        "processes": len(every),
        "median_s": round(statistics.median(seconds), 3),
        "longest_s": round(max(seconds), 3),
        "seconds": round(time.monotonic() - started_s, 1),
        "ends": [asdict(end) for end in every],
    }
    report = Path("build/queries.json")
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"{'PASSED' if result['passed'] else 'FAILED'}: {len(every)} processes, "
        f"median {result['median_s']} s, longest {result['longest_s']} s"
    )
    return 0 if result["passed"] else 1


def line(question: str, ends: list[End]) -> str:
    good = sum(end.status == 0 and end.right for end in ends)
    return (
        f"{'ok    ' if good == len(ends) else 'FAILED'} {good}/{len(ends)}, "
        f"median {statistics.median(end.seconds for end in ends):.2f} s, "
        f"longest {max(end.seconds for end in ends):.2f} s: {question}"
    )


if __name__ == "__main__":
    sys.exit(main())
