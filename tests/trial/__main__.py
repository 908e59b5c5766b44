"""Push releases that do harm to a real agent, and kill it with SIGKILL while it takes releases.

Exit status: 0 if each release is undone in time and no kill leaves a mistake, 1 if not, 2 for wrong use.
"""

import argparse
import json
import shutil
import signal
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from agent.errors import AgentError
from agent.system.arguments import whole
from tests.trial.drill import Drill, as_values, cases
from tests.trial.kills import Kills, kill_one


def main() -> int:
    parser = argparse.ArgumentParser(prog="make trial", description=__doc__)
    parser.add_argument("--kills", type=whole(0, 100_000), default=500, metavar="N", help="kills (%(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**32), default=1, metavar="N", help="of the kills (%(default)s)")
    parser.add_argument("--vehicles", type=whole(1, 16), default=3, metavar="N", help="that are killed (%(default)s)")
    parser.add_argument("--minutes", type=whole(1, 10_000), default=600, metavar="N", help="of kills (%(default)s)")
    parser.add_argument("--case", action="append", metavar="NAME", help="play only this case; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/trial"), help="folder, replaced (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like SIGINT, so that the programs are ended
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    wanted = cases(out)
    unknown = set(options.case or ()) - {case.name for case in wanted}
    if unknown:
        names = ", ".join(repr(case.name) for case in wanted)
        parser.error(f"--case {unknown.pop()!r} is no case; choose one of {names}")
    try:
        outcomes = Drill(out / "drill", print).run(
            [case for case in wanted if options.case is None or case.name in options.case]
        )
        kills = _kill(out, options.kills, options.seed, options.vehicles, options.minutes * 60)
    except AgentError as error:
        print(f"make trial: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make trial: interrupted", file=sys.stderr)
        return 130
    passed = all(outcome.passed for outcome in outcomes) and not kills.mistakes
    result = {"passed": passed, "cases": as_values(outcomes), "kills": kills.as_values()}
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{kills.kills} kills, {kills.releases} releases, {kills.receipts} receipts: {dict(kills.moments)}")
    for mistake in kills.mistakes:
        print(f"  {mistake}")
    print("PASSED" if passed else "FAILED")
    return 0 if passed else 1


def _kill(out: Path, kills: int, seed: int, vehicles: int, most_s: float) -> Kills:
    """Kill the agents of several vehicles at the same time, and return the sum of the results."""
    total = Kills(seed)
    shares = [kills // vehicles + (number < kills % vehicles) for number in range(vehicles)]
    # The threads of the Delta library, which has read the lake by now, do not survive a fork.
    with ProcessPoolExecutor(vehicles, mp_context=get_context("spawn")) as pool:
        arguments = [(out / f"kills-{n}", seed * 1_000 + n, share, most_s) for n, share in enumerate(shares) if share]
        for result in pool.map(kill_one, arguments):
            total.kills += result.kills
            total.releases += result.releases
            total.receipts += result.receipts
            total.moments += Counter(result.moments)
            total.outcomes += Counter(result.outcomes)
            total.mistakes += [f"seed {result.seed}, {mistake}" for mistake in result.mistakes]
    return total


if __name__ == "__main__":
    sys.exit(main())
