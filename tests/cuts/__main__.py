"""Cut the power of machines whose clocks are right, wrong or not set, and write build/cuts.json.

Exit status: 0 if every frame is in the lake once or named by the ledger, 1 if not, 2 for wrong use.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from agent.errors import AgentError
from agent.system.arguments import whole
from lab import user_mode_linux
from lab.folder import fresh
from tests.cuts.play import play_all
from tests.cuts.verdict import Fate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cuts", description=__doc__)
    parser.add_argument("--cuts", type=whole(1, 10_000), default=20, help="in each scenario (%(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**32), default=1, help="seed of the first history (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/cuts"), help="folder, replaced (%(default)s)")
    options = parser.parse_args()
    if (reason := user_mode_linux.unavailable()) is not None:
        print(f"make cuts: {reason}", file=sys.stderr)
        return 2
    started_s = time.monotonic()
    fates: list[Fate] = []
    try:
        for found in play_all(options.seed, options.cuts, fresh(options.out.resolve())):
            fates += found
            print(*map(line, found), sep="\n", flush=True)
    except (AgentError, AssertionError) as error:
        print(f"make cuts: FAILED: {error}", file=sys.stderr)
        return 1
    fates.sort(key=lambda fate: (fate.scenario, fate.seed, fate.boot))
    result = {
        "passed": all(fate.held for fate in fates),
        "seconds": round(time.monotonic() - started_s, 1),
        "cuts": [asdict(fate) for fate in fates if fate.cut != "none"],
        "last_boots": [asdict(fate) for fate in fates if fate.cut == "none"],
    }
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'PASSED' if result['passed'] else 'FAILED'} after {result['seconds']} s")
    return 0 if result["passed"] else 1


def line(fate: Fate) -> str:
    return (
        f"{'ok    ' if fate.held else 'FAILED'} {fate.scenario}, seed {fate.seed}, boot {fate.boot}, "
        f"clock {fate.clock}, cut {fate.cut}: {fate.sent} sent, {fate.missing} missing; "
        f"{fate.in_ledger} in the ledger, {fate.unaccounted} unaccounted, {fate.evicted} evicted; "
        f"{fate.doubled} double, {fate.mistimed} mistimed, {fate.vague} vague"
    )


if __name__ == "__main__":
    sys.exit(main())
