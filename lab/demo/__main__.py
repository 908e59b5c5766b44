"""`headunit-agent demo`: plays the drive, compares the lake with the oracle, and reports.

The exit status is 0 if all checks passed (`Result.passed`).  It is 1 if a check or the work failed, 2 for wrong use,
and 130 after an interrupt.  The command exits only after all programs that it started have ended, even if interrupted.
"""

import argparse
import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.errors import Permanent
from agent.system import arguments
from agent.system.arguments import bus_and_file
from agent.system.command_line import ended
from lab.demo.documents import write_documents
from lab.demo.drive import Drive
from lab.demo.input import DriveInput, recorded, virtual_vehicle
from lab.demo.publisher import Publisher
from lab.demo.report import Result, render, tls_of
from lab.demo.verdict import Outcome, judge
from lab.folder import fresh, require_ours
from lab.road import Road
from lab.world import World

LENGTH_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Play one demonstration and return the exit status."""
    return ended(lambda: _demonstrate(argv), lambda problem: print(f"demo: {problem}", file=sys.stderr))


def _demonstrate(argv: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    # Ctrl-C also ends the child processes, and asyncio would then warn that it does not know their exit status.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if bool(options.log) != bool(options.dbc):
        parser.error("--log and --dbc must be given together, because a recorded log needs its databases")
    _require_localhost()
    folder = options.out.resolve()
    require_ours(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".demo-input-", dir=folder.parent) as unpacked:
        source = _source(options, Path(unpacked))
        # The input has been read, so a mistake in it has left the result of the earlier run alone.
        fresh(folder)
        result = asyncio.run(_play(source, folder, options.length))
    (folder.parent / "demo.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    print(json.dumps(result.as_dict(), indent=2) if options.json else render(result))
    return 0 if result.passed else 1


def _require_localhost() -> None:
    """Check that the name of the broker can be resolved.  Raises: Permanent."""
    try:
        socket.getaddrinfo("localhost", None)
    except OSError as error:
        raise Permanent("localhost cannot be resolved; add `127.0.0.1 localhost` to /etc/hosts") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headunit-agent demo",
        description="Run the whole product in one drive. The agent captures, decodes, collects and seals signals.\n"
        "It stores them during an outage, and delivers them over MQTT with mutual TLS into a Delta table. The fleet\n"
        "publishes signed toggles, and the agent must refuse forged ones. At the end, cantools decodes the same\n"
        "input independently, and every sample in the lake is compared.",
        epilog="example:\n  headunit-agent demo --log drive.log.zst --dbc can0=powertrain.dbc --dbc can1=body.dbc",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, metavar="F", help="recorded log to play (default: a virtual vehicle)")
    parser.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        default=[],
        metavar="[BUS=]F",
        help="CAN database of a bus in the log, or of all buses; may be repeated",
    )
    parser.add_argument(
        "--match",
        choices=("exact", "pgn"),
        default="exact",
        help="find messages by identifier or by J1939 PGN (default: exact)",
    )
    parser.add_argument(
        "--seed",
        type=arguments.whole(0, 2**32),
        default=1,
        metavar="N",
        help="seed of the virtual vehicle (default: %(default)s)",
    )
    parser.add_argument(
        "--length",
        type=arguments.positive,
        default=LENGTH_S,
        metavar="S",
        help="length of the drive in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/demo"),
        metavar="DIR",
        help="folder for the run; an earlier run in it is deleted (default: %(default)s)",
    )
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
    print("  cantools now decodes the same input, and every sample is compared ...", file=sys.stderr)
    outcome = Outcome(drive.record, status, toggle, bytes_on_air, tls, agent_status, started_s)
    return await asyncio.to_thread(judge, source, world, documents.campaigns, outcome)


if __name__ == "__main__":
    sys.exit(main())
