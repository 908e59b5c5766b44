"""Plays one campaign: faults on every track, then a quiet time in which everything is delivered, then the verdict."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

from agent.errors import AgentError, Permanent, ungrouped
from lab.folder import fresh
from tests.faults import drive
from tests.faults.inflictor import Inflictor
from tests.faults.schedule import Fault, Kind, Track, faults
from tests.faults.verdict import Ledger, Verdict, compare_with_oracle, said
from tests.faults.world import FaultyWorld

WATCH_S = 0.25
PRINT_S = 15.0
DRAIN_S = 240.0


class Campaign:
    """A campaign of `minutes` in `folder`, which is emptied first.  Progress is printed to `stream`."""

    def __init__(self, seed: int, minutes: float, folder: Path, stream: TextIO = sys.stderr) -> None:
        self._seed = seed
        self._minutes = minutes
        self._folder = folder
        self._stream = stream
        self._happening: dict[Track, Fault] = {}
        self._started_s = 0.0

    def run(self) -> Verdict:
        """Play the campaign.  Raises: AgentError if a program ends by itself or does not deliver."""
        began_s = time.monotonic()
        fresh(self._folder)
        log = self._folder / "drive.log"
        frames = drive.write_log(log, self._minutes * 60)
        self._print(f"seed {self._seed}: {frames:,} frames in {self._minutes:g} minutes")
        with ungrouped():
            return asyncio.run(self._play(log, began_s))

    async def _play(self, log: Path, began_s: float) -> Verdict:
        async with FaultyWorld(self._folder, log) as faulty:
            await faulty.start()
            inflictor = Inflictor(faulty)
            self._started_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(faulty, inflictor))
                tracks = [group.create_task(self._suffer(inflictor, track), name=track) for track in Track]
                await asyncio.wait(tracks)
                watching.cancel()
            self._print("The faults are over.  The rest of the log is being delivered ...")
            await faulty.drain(DRAIN_S)
            self._print("cantools decodes the same log, and every sample is being compared ...")
            lake = faulty.world.fleet.lake
            return Verdict(
                seed=self._seed,
                minutes=self._minutes,
                happened=inflictor.happened,
                comparison=await asyncio.to_thread(compare_with_oracle, log, lake),
                ledger=Ledger.read(str(lake)),
                no_disk=faulty.no_disk,
                said=said(faulty.world.agent.log, faulty.world.receiver.log),
                seconds=time.monotonic() - began_s,
            )

    async def _suffer(self, inflictor: Inflictor, track: Track) -> None:
        for fault in faults(self._seed, track, self._minutes * 60):
            await asyncio.sleep(self._started_s + fault.at_s - time.monotonic())
            self._happening[track] = fault
            await inflictor.inflict(fault)
            del self._happening[track]

    async def _watch(self, faulty: FaultyWorld, inflictor: Inflictor) -> None:
        printed_s = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            faulty.check()
            now_s = time.monotonic()
            if now_s - printed_s > (1.0 if self._stream.isatty() else PRINT_S):
                printed_s = now_s
                kills = sum(n for (_, kind), n in inflictor.happened.items() if kind is Kind.KILL)
                now = ", ".join(f"{track}: {fault.kind}" for track, fault in sorted(self._happening.items()))
                self._print(
                    f"{now_s - self._started_s:5.0f} s of {self._minutes * 60:.0f}, {kills} kills; {now}", passing=True
                )

    def _print(self, text: str, *, passing: bool = False) -> None:
        if self._stream.isatty():
            print(f"\r\x1b[K{text}", end="" if passing else "\n", file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)


def play(seed: int, minutes: float, folder: Path) -> Verdict:
    """Play one campaign.  Raises: Permanent with the seed if it cannot be played to its end."""
    try:
        return Campaign(seed, minutes, folder).run()
    except AgentError as error:
        raise Permanent(f"seed {seed}: {error}") from error
