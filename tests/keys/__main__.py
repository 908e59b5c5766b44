"""Rotate every key of a running fleet of 20 vehicles, and see that no sample is lost or stored twice.

Exit status: 0 if this holds, 1 if not, 2 for wrong use.
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from agent.errors import AgentError
from agent.system.arguments import whole
from tests.keys.drill import Drill
from tests.keys.result import write_result


def tell(line: str) -> None:
    print(line, flush=True)  # also into a file, because a drill takes minutes


def main() -> int:
    parser = argparse.ArgumentParser(prog="make keys-drill", description=__doc__)
    parser.add_argument("--vehicles", type=whole(2, 200), default=20, metavar="N", help="vehicles (%(default)s)")
    parser.add_argument("--offline", type=whole(1, 100), default=5, metavar="N", help="of them offline (%(default)s)")
    parser.add_argument("--seconds", type=whole(10, 36_000), default=300, metavar="S", help="drive (%(default)s s)")
    parser.add_argument("--out", type=Path, default=Path("build/keys"), help="folder, replaced (%(default)s)")
    options = parser.parse_args()
    if options.offline >= options.vehicles:
        parser.error("--offline must be below --vehicles")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like SIGINT, so that the programs are ended
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        drill = Drill(out, vehicles=options.vehicles, offline=options.offline, seconds=options.seconds, tell=tell)
        result = drill.run()
    except AgentError as error:
        print(f"make keys-drill: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make keys-drill: interrupted", file=sys.stderr)
        return 130
    write_result(result, out.with_suffix(".json"))
    print(f"samples: {result.samples_in_lake:,} in the lake, {result.samples_expected:,} expected by cantools")
    print(f"doubles {result.doubles}, losses {result.losses}, certificates renewed {result.certificates_renewed}")
    for name, seconds in result.seconds.items():
        print(f"{name}: {seconds:.1f} s")
    print("PASSED" if result.passed else "FAILED")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
