"""Make many power cuts in the stores, print the seeds, and write build/powercut.json."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from agent.system.arguments import whole
from tests.powercut.cuts import CUTS_A_DRIVE, cut_drive
from tests.powercut.stores import STORES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--cuts", type=whole(1, 10**8), default=10_000, help="in all stores together (%(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**32), default=1, help="seed of the first drive (%(default)s)")
    options = parser.parse_args()
    started = time.monotonic()
    drives = -(-options.cuts // (CUTS_A_DRIVE * len(STORES)))
    print(f"seeds {options.seed} to {options.seed + drives - 1}, {CUTS_A_DRIVE} cuts in each of {', '.join(STORES)}")
    violations = [
        violation
        for seed in range(options.seed, options.seed + drives)
        for store in STORES
        for violation in cut_drive(store, seed, CUTS_A_DRIVE)
    ]
    # This tests the test: if syncs of files or of folders are left out, a violation must be found.
    planted = {
        kind: any(
            cut_drive(store, seed, CUTS_A_DRIVE, lambda found, _path, kind=kind: found == kind)
            for seed in range(options.seed, options.seed + 20)
            for store in STORES
        )
        for kind in ("file", "folder")
    }
    result = {
        "seed": options.seed,
        "cuts": dict.fromkeys(STORES, drives * CUTS_A_DRIVE),
        "violations": len(violations),
        "planted_bug_caught": all(planted.values()),
        "found": [asdict(violation) for violation in violations[:20]],
        "seconds": round(time.monotonic() - started, 1),
    }
    Path("build").mkdir(exist_ok=True)
    Path("build/powercut.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if violations or not result["planted_bug_caught"] else 0


if __name__ == "__main__":
    sys.exit(main())
