"""Run agent, broker and receiver for an hour, and see that nothing is lost and that their memory stays flat.

Exit status: 0 if both hold, 1 if not, 2 for wrong use.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from agent.errors import AgentError
from agent.system.arguments import positive
from tests.shared_data import DATA
from tests.soak.soak import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=positive, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="folder, replaced (%(default)s)")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"make soak: there are no recorded captures in {DATA}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like SIGINT, so that the programs are ended
    out = options.out.resolve()
    try:
        result = soak(options.minutes, out)
    except AgentError as error:
        print(f"make soak: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make soak: interrupted", file=sys.stderr)
        return 130
    out.with_suffix(".json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    print(f"samples: {result.samples_in_lake:,} in the lake, {result.samples_expected:,} expected by cantools")
    for name, memory in result.memory.items():
        print(
            f"{name}: {memory.first_mb:.0f} MB after warming up, {memory.last_mb:.0f} MB at the end, "
            f"at most {memory.peak_mb:.0f} MB, {memory.growth_mb_per_hour:+.1f} MB an hour"
        )
    print("PASSED" if result.passed else "FAILED")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
