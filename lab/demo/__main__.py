"""`headunit-agent demo`: plays the drive, compares the lake with the oracle, and reports.

Exit status: 0 when the lake holds exactly what it must and every forged push was refused; 1 otherwise; 2 wrong use;
130 interrupted, after its programs have ended.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agent.system import arguments
from agent.system.arguments import bus_and_file
from agent.system.command_line import ended
from lab.demo.documents import write_documents
from lab.demo.drive import Drive
from lab.demo.input import DriveInput, recorded, virtual_vehicle
from lab.demo.publisher import Publisher
from lab.demo.report import Result, render, tls_of
from lab.demo.verdict import Outcome, judge
from lab.folder import fresh
from lab.road import Road
from lab.world import World

LENGTH_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Play one demonstration and return the exit status."""
    return ended(lambda: _demonstrate(argv), lambda problem: print(f"demo: {problem}", file=sys.stderr))


def _demonstrate(argv: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    # An interrupt from a terminal ends the children as well, and asyncio would warn that it cannot say how.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if bool(options.log) != bool(options.dbc):
        parser.error("--log and --dbc go together: a recording needs its databases")
    folder = fresh(options.out.resolve())
    source = _source(options, folder)
    result = asyncio.run(_play(source, folder, options.length))
    (folder.parent / "demo.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    print(json.dumps(result.as_dict(), indent=2) if options.json else render(result))
    return 0 if result.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headunit-agent demo",
        description="The whole product in one drive: capture, decode, collect, seal, store through an outage, deliver\n"
        "over MQTT with mutual TLS into a Delta table; a signed toggle comes back, forged ones are refused. At the\n"
        "end cantools decodes the same input independently and every sample in the lake is compared.",
        epilog="example:\n  headunit-agent demo --log drive.log.zst --dbc can0=powertrain.dbc --dbc can1=body.dbc",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, metavar="F", help="a recorded log; without it the virtual vehicle drives")
    parser.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        default=[],
        metavar="[BUS=]F",
        help="its databases; may be repeated",
    )
    parser.add_argument("--match", choices=("exact", "pgn"), default="exact", help="how identifiers find messages")
    parser.add_argument(
        "--seed", type=arguments.whole(0, 2**32), default=1, metavar="N", help="seed of the virtual vehicle"
    )
    parser.add_argument(
        "--length", type=arguments.positive, default=LENGTH_S, metavar="S", help="seconds the drive takes (%(default)g)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="made anew (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _source(options: argparse.Namespace, folder: Path) -> DriveInput:
    if options.log is None:
        return virtual_vehicle(options.seed)
    return recorded(options.log, options.dbc, options.match, folder)


async def _play(source: DriveInput, folder: Path, length_s: float) -> Result:
    started_s = time.monotonic()
    with World(folder) as world:
        print(f"  {source.name}: {source.seconds:.0f} s of driving in {length_s:.0f} s", file=sys.stderr)
        await world.fleet_command("init")
        enrolled = await world.fleet_command("enrol", "--out", str(world.vehicle.identity), "--brand", "Aria")
        world.broker.start()
        world.receiver.start()
        async with Road(world.broker.port) as road:
            world.vehicle.broker_port = road.port
            documents = write_documents(world.vehicle, source, length_s)
            tls = await asyncio.to_thread(tls_of, world)
            world.agent.start()
            await world.until("the agent is online", lambda s: s["link"]["state"] == "online", 30.0)
            drive = Drive(world, road, Publisher(world, enrolled["vehicle"], documents), length_s)
            status = await drive.play()
            toggle = await asyncio.to_thread(world.agent.toggle, "demo-greeting")
            bytes_on_air = road.bytes_up + road.bytes_down
            agent_status = await asyncio.to_thread(world.agent.stop)
        await asyncio.to_thread(world.receiver.stop)
    print("  cantools decodes the same input, and every sample is compared ...", file=sys.stderr)
    outcome = Outcome(drive.record, status, toggle, bytes_on_air, tls, agent_status, started_s)
    return await asyncio.to_thread(judge, source, world, documents.campaigns, outcome)


if __name__ == "__main__":
    sys.exit(main())
