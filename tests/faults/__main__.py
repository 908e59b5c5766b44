"""Play a seeded campaign of faults over agent, broker and receiver as real processes on loopback.

Exit status: 0 if every sample arrived once or is accounted for as lost, 1 if not, 2 for wrong use.
"""

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path

from agent.errors import AgentError
from agent.system.arguments import positive, whole
from tests.faults.campaign import play
from tests.faults.verdict import render, repeat, write
from tests.shared_data import DATA


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=whole(0, 2**32), default=os.environ.get("SEED") or random.randrange(1_000_000))
    parser.add_argument("--minutes", type=positive, default=os.environ.get("MINUTES") or 15.0)
    parser.add_argument("--out", type=Path, default=Path("build/faults"), help="folder, replaced (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"make faults: there are no recorded captures in {DATA}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like SIGINT, so that the programs are ended
    try:
        verdict = play(options.seed, options.minutes, options.out.resolve())
    except AgentError as error:
        again = repeat(options.seed, options.minutes)
        print(f"make faults: FAILED: {error}\nrepeat it: make faults {again}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make faults: interrupted", file=sys.stderr)
        return 130
    write(verdict, options.out.resolve().with_suffix(".json"))
    print(json.dumps(verdict.as_dict(), indent=2) if options.json else render(verdict))
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
