"""Feed damaged inputs to all readers, and report the failures.  The exit status is 1 if there is any failure."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from agent.system.arguments import whole
from tests.fuzz.runner import chosen, fuzz, share_out
from tests.fuzz.targets import TARGETS

BUILD = Path(__file__).parents[2] / "build"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one or more of {', '.join(names)} (all)")
    parser.add_argument(
        "--inputs", type=whole(1, 1_000_000_000), default=100_000, metavar="N", help="in all (%(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, 2**32), default=1, metavar="S", help="of all inputs (%(default)s)")
    parser.add_argument(
        "--jobs", type=whole(1, 1_000), default=os.cpu_count() or 1, metavar="J", help="processes (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=BUILD / "fuzz.json", metavar="FILE", help="report (%(default)s)")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(names)):
        parser.error(f"there is no target {', '.join(unknown)}; choose from {', '.join(names)}")
    targets = chosen(options.targets)
    print(", ".join(f"{name} {count:,}" for name, count in share_out(targets, options.inputs).items()))
    began = time.monotonic()
    found = fuzz(targets, options.inputs, options.seed, options.out.parent / "fuzz", options.jobs)
    report = {
        "seed": options.seed,
        "inputs": sum(one.inputs for one in found.values()),
        "crashes": sum(len(one.crashes) for one in found.values()),
        "seconds": round(time.monotonic() - began, 1),
        "targets": {
            name: {
                "inputs": one.inputs,
                "errors": dict(one.errors),
                "crashes": one.crashes,
                "seconds": round(one.seconds, 1),
            }
            for name, one in found.items()
        },
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    for name, one in found.items():
        own = ", ".join(f"{count:,} {kind}" for kind, count in one.errors.items()) or "no error"
        print(f"{name:>12}  {one.inputs:>9,} inputs  {one.seconds:7.1f} s  {own}, {len(one.crashes)} failures")
        for crash in one.crashes[:5]:
            print(f"              {crash}")
    return 1 if report["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
