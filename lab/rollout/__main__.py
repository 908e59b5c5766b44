"""The command line of the drill: `python -m lab.rollout`, which `make rollout` runs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.system import log
from agent.system.arguments import whole
from agent.system.command_line import ended
from fleet.commands.output import complain
from lab.rollout.drill import Drill, play


def main(argv: Sequence[str] | None = None) -> int:
    """Play the drill and return its exit status: 0 if everything was as it must be."""
    return ended(lambda: _run(_parser().parse_args(argv)), complain)


def _run(args: argparse.Namespace) -> int:
    log.configure()
    failing = round(args.vehicles * args.failing / 100)
    report = play(Drill(args.vehicles, failing, args.stages, args.hold, args.stop_if, args.kills, args.seed))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    print("\n".join(_text(report)))
    return 0 if report["passed"] else 1


def _text(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['vehicles']} vehicles, of which {report['failing']} fail on the new release"]
    for part in ("stopped", "finished"):
        found = report[part]
        lines.append(
            f"{found['phase']} at {found['stages'][-1]['percent']:g} %, after {found['seconds']} s and "
            f"{found['kills']} kills: {found['vehicles_reached']} vehicles had the release, "
            f"{found['vehicles_failed']} failed"
        )
        lines += [
            f"  stage {stage['percent']:g} %: {stage['vehicles']} vehicles, {stage['confirmed']} confirmed, "
            f"{stage['failed']} failed, {stage['seconds']} s"
            for stage in found["stages"]
        ]
    return [*lines, f"result: {'passed' if report['passed'] else 'failed'}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.rollout", description="Play a staged roll-out that fails.")
    parser.add_argument("--vehicles", type=whole(10, 10_000), default=200, metavar="N", help="number of vehicles")
    parser.add_argument("--failing", type=float, default=3.0, metavar="PERCENT", help="vehicles that fail")
    parser.add_argument("--stages", default="1,10,50,100", metavar="PERCENT,...")
    parser.add_argument("--hold", default="2s", metavar="TIME")
    parser.add_argument("--stop-if", default="failures>0.5%", metavar="LIMIT")
    parser.add_argument("--kills", type=whole(0, 100), default=3, metavar="N", help="kills of each roll-out")
    parser.add_argument("--seed", type=whole(0, 10**9), default=3, metavar="N", help="chooses the failing vehicles")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report to this file, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
