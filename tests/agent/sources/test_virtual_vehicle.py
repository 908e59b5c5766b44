"""The virtual vehicle yields the simulator's frames in real time.  Without the simulator, an error says what to do."""

import asyncio
import subprocess
import sys

from agent.sources import Source
from agent.sources.virtual_vehicle import VirtualVehicle
from can_dbc.frames import FrameBlock, concatenate
from tests.simulator.test_frames import START_NS, recorded, same


def test_the_source_yields_the_frames_of_the_generator() -> None:
    source: Source = VirtualVehicle(5, START_NS, 30.0, 0, name="demo")

    async def collect() -> list[FrameBlock]:
        return [block async for block in source.blocks()]

    assert same(concatenate(asyncio.run(collect())), recorded())
    assert (source.name, source.buses) == ("demo", ("can0", "can1"))


def test_the_source_keeps_the_frames_when_it_is_paced() -> None:
    source = VirtualVehicle(5, START_NS, 2.0, 20.0, drain_ms=5)

    async def collect() -> list[FrameBlock]:
        return [block async for block in source.blocks()]

    blocks = asyncio.run(collect())
    assert same(concatenate(blocks), recorded().slice(0, sum(map(len, blocks))))
    assert 15 <= len(blocks) <= 25


def test_without_the_simulator_no_source_can_be_made_and_the_error_says_what_to_do() -> None:
    program = (
        "import sys; sys.modules['simulator'] = None\n"
        "from agent.errors import Permanent\n"
        "from agent.sources.virtual_vehicle import VirtualVehicle\n"
        "try: VirtualVehicle(1, 0, 1.0, 0)\n"
        "except Permanent as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "source vehicle" in done.stdout
    assert "configure packet_ring, python_can or replay" in done.stdout
