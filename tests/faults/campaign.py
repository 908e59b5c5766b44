"""Plays one campaign: every track's faults in their time, then quiet, draining, and the verdict."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

from agent.errors import AgentError, Permanent, first
from lab.demo.compare import Comparison
from lab.demo.folder import fresh
from tests.faults import drive
from tests.faults.schedule import Fault, Kind, Track, faults
from tests.faults.verdict import Ledger, Verdict, compare_with_oracle, said
from tests.faults.world import World

WATCH_S = 0.25
TELL_S = 15.0
DRAIN_S = 240.0


class Campaign:
    """One campaign of `minutes` in `folder`, which is made anew; what happens is told on `stream`."""

    def __init__(self, seed: int, minutes: float, folder: Path, stream: TextIO = sys.stderr) -> None:
        self._seed = seed
        self._minutes = minutes
        self._folder = folder
        self._stream = stream
        self._happening: dict[Track, Fault] = {}
        self._started_s = 0.0

    def run(self) -> Verdict:
        """Play it.  Raises AgentError where a program gives up, or does not deliver."""
        began_s = time.monotonic()
        fresh(self._folder)
        log = self._folder / "drive.log"
        frames = drive.write_log(log, self._minutes * 60)
        self._tell(f"seed {self._seed}: {frames:,} frames in {self._minutes:g} minutes")
        try:
            ledger, comparison, world = asyncio.run(self._play(log))
        except ExceptionGroup as group:
            ours, others = group.split(AgentError)
            if ours is None or others is not None:
                raise
            raise first(ours) from group
        heard = said(self._folder / "agent.log", self._folder / "receiver.log")
        seconds = time.monotonic() - began_s
        return Verdict(self._seed, self._minutes, world.happened, comparison, ledger, world.no_disk, heard, seconds)

    async def _play(self, log: Path) -> tuple[Ledger, Comparison, World]:
        async with World(self._folder, log) as world:
            await world.start()
            self._started_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(world))
                tracks = [group.create_task(self._suffer(world, track), name=track) for track in Track]
                await asyncio.wait(tracks)
                watching.cancel()
            self._tell("quiet: the rest of the log, and everything is delivered ...")
            await world.drain(DRAIN_S)
            self._tell("cantools decodes the same log, and every sample is compared ...")
            comparison = await asyncio.to_thread(compare_with_oracle, log, world.fleet.lake)
            return Ledger.read(str(world.fleet.lake)), comparison, world

    async def _suffer(self, world: World, track: Track) -> None:
        for fault in faults(self._seed, track, self._minutes * 60):
            await asyncio.sleep(self._started_s + fault.at_s - time.monotonic())
            self._happening[track] = fault
            await world.suffer(fault)
            del self._happening[track]

    async def _watch(self, world: World) -> None:
        told_s = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            world.check()
            now_s = time.monotonic()
            if now_s - told_s > (1.0 if self._stream.isatty() else TELL_S):
                told_s = now_s
                kills = sum(n for (_, kind), n in world.happened.items() if kind is Kind.KILL)
                now = ", ".join(f"{track}: {fault.kind}" for track, fault in sorted(self._happening.items()))
                self._tell(
                    f"{now_s - self._started_s:5.0f} s of {self._minutes * 60:.0f}, {kills} kills; {now}", passing=True
                )

    def _tell(self, text: str, *, passing: bool = False) -> None:
        if self._stream.isatty():
            print(f"\r\x1b[K{text}", end="" if passing else "\n", file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)


def play(seed: int, minutes: float, folder: Path) -> Verdict:
    """As Campaign.run; a failure names the seed."""
    try:
        return Campaign(seed, minutes, folder).run()
    except AgentError as error:
        raise Permanent(f"seed {seed}: {error}") from error
