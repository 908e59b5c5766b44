"""Test live interfaces: python-can's virtual bus, slcan on a pseudo-terminal, and udp_multicast."""

import asyncio
import importlib.util
import os
import select
import subprocess
import sys
import threading
import time
import tty
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import can
import numpy as np
import pytest
from structlog.testing import capture_logs

from agent.errors import Permanent
from agent.sources import BusLoss, Source
from agent.sources.adapter import Adapter as Interface
from agent.sources.python_can import Limits, PythonCanSource
from can_dbc.frames import BRS, ERROR, ESI, EXTENDED, FD, REMOTE, FrameBlock, concatenate

DEADLINE_S = 10


def source(*, losses: list[BusLoss] | None = None, **settings: object) -> PythonCanSource:
    bus = settings.pop("bus", "can0")
    limits = {name: settings.pop(name) for name in ("drain_ms", "buffer_frames") if name in settings}
    adapter = Interface(**{"interface": "virtual", "channel": "none"} | settings)
    quick = Limits(**{"drain_ms": 5, "retry_min_s": 0.01, "retry_max_s": 0.05} | limits)
    return PythonCanSource(bus, adapter, on_loss=(losses if losses is not None else []).append, limits=quick)


async def frames_of(blocks: AsyncIterator[FrameBlock], count: int) -> FrameBlock:
    """Read blocks until they hold at least `count` frames, and return the frames."""
    received: list[FrameBlock] = []
    async with asyncio.timeout(DEADLINE_S):
        while sum(map(len, received)) < count:
            received.append(await anext(blocks))
    return concatenate(received)


@contextmanager
def transmitter(channel: str) -> Iterator[can.BusABC]:
    with can.Bus(channel, "virtual", preserve_timestamps=True, ignore_config=True) as bus:
        yield bus


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)


def listeners(channel: str) -> int:
    from can.interfaces.virtual import channels

    return len(channels.get(channel, []))


# ---- the virtual interface


def test_frames_of_several_buses_arrive_whole_and_in_order() -> None:
    async def scenario() -> None:
        names = [uuid.uuid4().hex for _ in range(3)]
        sources: list[Source] = [source(bus=f"can{n}", channel=name) for n, name in enumerate(names)]
        streams = [each.blocks() for each in sources]
        waiting = [asyncio.create_task(frames_of(stream, 300)) for stream in streams]
        await until(lambda: all(listeners(name) == 1 for name in names))
        for number, name in enumerate(names):
            with transmitter(name) as bus:
                for n in range(300):
                    message = can.Message(timestamp=1e9 + n / 1e6, arbitration_id=n, data=[number, n % 256])
                    bus.send(message)
        for number, received in enumerate(await asyncio.gather(*waiting)):
            assert sources[number].buses == received.buses == (f"can{number}",)
            assert received.can_id.tolist() == list(range(300))
            assert received.t_ns.tolist() == [10**18 + 1_000 * n for n in range(300)]
            assert received.data[:, 0].tolist() == [number] * 300
            assert received.length.tolist() == [2] * 300
        for stream in streams:
            await stream.aclose()
        assert [listeners(name) for name in names] == [0, 0, 0]

    asyncio.run(scenario())


def test_every_kind_of_frame_keeps_its_form() -> None:
    sent = [
        (can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b"12345678"), 0),
        (can.Message(arbitration_id=0x1FFFFFFF, data=b""), EXTENDED),
        (can.Message(arbitration_id=1, is_extended_id=False, is_remote_frame=True, dlc=4), REMOTE),
        (can.Message(arbitration_id=4, is_error_frame=True, dlc=8, data=bytes(8)), EXTENDED | ERROR),
        (can.Message(arbitration_id=2, is_extended_id=False, is_fd=True, data=bytes(range(64))), FD),
        (
            can.Message(arbitration_id=3, is_fd=True, bitrate_switch=True, error_state_indicator=True),
            EXTENDED | FD | BRS | ESI,
        ),
    ]

    async def scenario() -> FrameBlock:
        name = uuid.uuid4().hex
        async with aclosing(source(channel=name).blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, len(sent)))
            await until(lambda: listeners(name) == 1)
            with transmitter(name) as bus:
                for message, _ in sent:
                    message.timestamp = 1.5
                    bus.send(message)
            return await waiting

    received = asyncio.run(scenario())
    assert received.flags.tolist() == [flags for _, flags in sent]
    assert received.can_id.tolist() == [message.arbitration_id for message, _ in sent]
    assert received.length.tolist() == [len(message.data) for message, _ in sent]
    for data, (message, _) in zip(received.data, sent, strict=True):
        assert data.tobytes().startswith(bytes(message.data))
        assert not data[len(message.data) :].any()


def test_a_frame_without_a_timestamp_gets_the_time_of_its_arrival() -> None:
    async def scenario() -> FrameBlock:
        name = uuid.uuid4().hex
        async with aclosing(source(channel=name).blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 1))
            await until(lambda: listeners(name) == 1)
            with transmitter(name) as bus:
                bus.send(can.Message(arbitration_id=1, timestamp=0.0))
            return await waiting

    before = time.time_ns()
    assert before - 1_000 <= asyncio.run(scenario()).t_ns[0] <= time.time_ns()


def test_a_full_buffer_loses_nothing_silently() -> None:
    async def scenario() -> tuple[FrameBlock, list[BusLoss]]:
        name, losses = uuid.uuid4().hex, []
        live = source(channel=name, buffer_frames=10, losses=losses, drain_ms=300)
        async with aclosing(live.blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 1))
            await until(lambda: listeners(name) == 1)
            with transmitter(name) as bus:
                for n in range(25):
                    bus.send(can.Message(arbitration_id=n, timestamp=2.0 + n / 1_000))
            return await waiting, losses

    received, losses = asyncio.run(scenario())
    assert received.can_id.tolist() == list(range(10))
    assert losses == [BusLoss("can0", 15, 2_010_000_000, 2_024_000_000, "buffer full")]


def test_frames_that_no_bus_can_carry_are_counted() -> None:
    async def scenario() -> tuple[FrameBlock, list[BusLoss]]:
        name, losses = uuid.uuid4().hex, []
        async with aclosing(source(channel=name, losses=losses).blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 1))
            await until(lambda: listeners(name) == 1)
            with transmitter(name) as bus:
                bus.send(can.Message(arbitration_id=0x800, is_extended_id=False, timestamp=1.0))
                bus.send(can.Message(arbitration_id=1 << 29, timestamp=2.0))
                bus.send(can.Message(arbitration_id=1, dlc=8, data=b"123", timestamp=3.0))
                bus.send(can.Message(arbitration_id=1, data=bytes(9), timestamp=4.0))
                bus.send(can.Message(arbitration_id=1, timestamp=5.0))
            return await waiting, losses

    received, losses = asyncio.run(scenario())
    assert received.t_ns.tolist() == [5_000_000_000]
    assert sum(loss.count for loss in losses) == 4
    assert {loss.detail for loss in losses} == {"garbled"}


def test_frames_that_nobody_fetched_before_closing_are_the_rest() -> None:
    async def scenario() -> FrameBlock | None:
        name, losses = uuid.uuid4().hex, list[BusLoss]()
        of = source(channel=name, losses=losses)
        blocks = of.blocks()
        waiting = asyncio.create_task(frames_of(blocks, 1))
        await until(lambda: listeners(name) == 1)
        with transmitter(name) as bus:
            bus.send(can.Message(arbitration_id=1, timestamp=1.0))
            await waiting
            bus.send(can.Message(arbitration_id=2, timestamp=2.0))
            await asyncio.sleep(0.05)
        await blocks.aclose()
        assert not losses
        return of.rest

    rest = asyncio.run(scenario())
    assert rest is not None
    assert (rest.first, rest.can_id.tolist(), rest.t_ns.tolist()) == (1, [2], [2_000_000_000])


def test_an_error_that_names_no_key_blames_only_keys_that_agent_toml_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> can.BusABC:
        raise ValueError("broken")

    monkeypatch.setattr(can, "Bus", refuse)
    with pytest.raises(Permanent, match="source can0: channel / bitrate: broken; correct the setting"):
        Interface("slcan", "/dev/ttyACM0", 500_000).open("can0")


@pytest.mark.parametrize(
    ("settings", "blamed"),
    [
        ({"interface": "carrier-pigeon"}, "interface = 'carrier-pigeon'"),
        ({"options": {"listen_olny": True}}, "options.listen_olny"),
        ({"interface": "slcan", "channel": "loop://", "options": {"tty_baudrate": "fast"}}, "options.tty_baudrate"),
        ({"interface": "slcan", "channel": ""}, "channel"),
        ({"interface": "slcan", "channel": "loop://", "bitrate": 42, "options": {"sleep_after_open": 0}}, "bitrate"),
    ],
)
def test_wrong_options_end_the_source_and_name_it_and_the_key(settings: dict, blamed: str) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await anext(source(bus="chassis", **settings).blocks())

    with pytest.raises(Permanent, match="source chassis") as refusal:
        asyncio.run(scenario())
    assert blamed in str(refusal.value)


# ---- slcan over a pseudo-terminal


class Adapter:
    """Simulates a Lawicel serial adapter on a pseudo-terminal.  It obeys commands and sends frames while it is open."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self.commands: list[str] = []
        self._stopping = threading.Event()

    def __enter__(self) -> "Adapter":
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.ttyname(self._slave))
        self._thread = threading.Thread(target=self._obey)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        os.close(self._slave)
        os.close(self._master)
        self._link.unlink()

    def _obey(self) -> None:
        rest = b""
        while not self._stopping.is_set():
            if select.select([self._master], [], [], 0.01)[0]:
                *lines, rest = (rest + os.read(self._master, 4096)).split(b"\r")
                self.commands += [line.decode() for line in lines if line]
                os.write(self._master, b"\r" * len(lines))

    @property
    def listening(self) -> bool:
        return self.commands[-1:] == ["L"]

    def send(self, *lines: str) -> None:
        os.write(self._master, "".join(f"{line}\r" for line in lines).encode())


def slcan(link: Path, losses: list[BusLoss] | None = None) -> PythonCanSource:
    options = {"sleep_after_open": 0.01}
    return source(interface="slcan", channel=str(link), bitrate=500_000, options=options, losses=losses)


def test_slcan_receives_through_pyserial_and_only_listens(tmp_path: Path) -> None:
    async def scenario(adapter: Adapter) -> FrameBlock:
        async with aclosing(slcan(tmp_path / "tty").blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 203))
            await until(lambda: adapter.listening)
            adapter.send("t1232A1B2", "T18DAF1100", "r0424", *(f"t{n:03X}8{n:016X}" for n in range(200)))
            return await waiting

    with Adapter(tmp_path / "tty") as adapter:
        received = asyncio.run(scenario(adapter))
        time.sleep(0.05)
    assert received.can_id.tolist()[:3] == [0x123, 0x18DAF110, 0x042]
    assert received.flags.tolist()[:3] == [0, EXTENDED, REMOTE]
    assert received.data[0, :2].tolist() == [0xA1, 0xB2]
    assert received.can_id.tolist()[3:] == list(range(200))
    assert np.array_equal(received.data[3:, 7], np.arange(200))
    assert (np.abs(received.t_ns - time.time_ns()) < 60e9).all()
    assert "S6" in adapter.commands
    assert set(adapter.commands) <= {"C", "S6", "L"}, "an adapter that only listens gets no other command"


def test_garbled_serial_lines_are_counted_and_cost_no_other_frame(tmp_path: Path) -> None:
    losses: list[BusLoss] = []

    async def scenario(adapter: Adapter) -> FrameBlock:
        async with aclosing(slcan(tmp_path / "tty", losses).blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 2))
            await until(lambda: adapter.listening)
            adapter.send("t0011AA", "tXYZ1AA", "t0018AA", "t", "t0021BB")
            return await waiting

    with Adapter(tmp_path / "tty") as adapter:
        assert asyncio.run(scenario(adapter)).can_id.tolist() == [1, 2]
    assert (sum(loss.count for loss in losses), {loss.detail for loss in losses}) == (3, {"garbled"})


def test_an_adapter_that_comes_late_goes_away_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    losses: list[BusLoss] = []
    link = tmp_path / "tty"

    async def scenario() -> list[int]:
        received = []
        source = slcan(link, losses)
        async with aclosing(source.blocks()) as blocks:
            for plugged_in in range(3):
                waiting = asyncio.create_task(frames_of(blocks, 1))
                await asyncio.sleep(0.2)  # several attempts to open the missing adapter
                assert source.waiting is not None
                assert source.waiting.startswith(f"slcan {link} cannot be opened: ")
                with Adapter(link) as adapter:
                    await until(lambda adapter=adapter: adapter.listening)
                    adapter.send(f"t00{plugged_in}0")
                    received += (await waiting).can_id.tolist()
                    assert source.waiting is None
        return received

    with capture_logs() as logs:
        assert asyncio.run(scenario()) == [0, 1, 2]
    events = [entry["event"] for entry in logs]
    assert events[:6] == ["bus_waiting", "bus_open"] * 3
    away = [loss for loss in losses if loss.detail == "interface away"]
    assert len(away) == 2
    assert all(loss.count == 0 and loss.last_ns - loss.first_ns > 100_000_000 for loss in away)


# ---- memory


@pytest.mark.parametrize(
    "source",
    [
        'kind = "python_can", bus = "a", interface = "virtual", channel = "x"',
        'kind = "virtual_vehicle", duration_s = 1, speed = 0',
        'kind = "replay", log = "a.log"',
    ],
)
def test_no_source_imports_what_only_mf4_logs_need(tmp_path: Path, source: str) -> None:
    assert importlib.util.find_spec("asammdf") is not None  # without it the test would show nothing
    (tmp_path / "a.log").write_text("(1.000000) a 123#00\n")
    program = f"""
import asyncio, sys
from pathlib import Path
from agent.runtime.configured_sources import make_source
from agent.settings.settings import Loaded, parse

async def first_block(source):
    async for block in source.blocks():
        return block

text = 'sources = [{{{source}}}]\\n[uplink]\\nbroker = "b:1"'
source = make_source(Loaded(parse(text, "agent.toml"), Path("agent.toml")), 0, lambda _: None)
if {"python_can" not in source}:
    assert len(asyncio.run(first_block(source)))
assert "can" in sys.modules
print(sorted({{"asammdf", "pandas", "pyarrow", "lxml"}} & set(sys.modules)))
import asammdf  # whoever needs it still gets it
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


# ---- udp_multicast


def test_udp_multicast_on_loopback() -> None:
    pytest.importorskip("msgpack", reason="python-can's udp_multicast needs msgpack")
    # python-can names no interface, so packets to other groups would leave the machine by its default route.  The
    # kernel never sends a packet to a group of interface scope (ff01), or with a hop limit of 0, to an interface.
    group, options = "ff01::7079:7468:6f6e", {"hop_limit": 0}

    async def scenario() -> FrameBlock:
        async with aclosing(source(interface="udp_multicast", channel=group, options=options).blocks()) as blocks:
            waiting = asyncio.create_task(frames_of(blocks, 1))
            with can.Bus(group, "udp_multicast", ignore_config=True, **options) as bus:
                while not waiting.done():
                    bus.send(can.Message(arbitration_id=0x77, data=b"hello"))
                    await asyncio.sleep(0.05)
            return await waiting

    assert asyncio.run(scenario()).can_id[0] == 0x77
