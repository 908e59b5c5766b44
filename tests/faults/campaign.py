"""Plays one campaign: chapters of faults, each with a quiet end in which everything is delivered, then the verdict.

Between two chapters a disk is put back to an earlier state.
"""

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from agent.errors import AgentError, Permanent, ungrouped
from lab.folder import fresh
from tests.faults import drive
from tests.faults.history import History
from tests.faults.images import Images
from tests.faults.inflictor import Inflictor
from tests.faults.schedule import Chapter, Fault, Kind, Track, chapters, faults
from tests.faults.verdict import Verdict, judge_samples, said
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
        with ungrouped():
            return asyncio.run(self._play(began_s))

    async def _play(self, began_s: float) -> Verdict:
        async with FaultyWorld(self._folder) as faulty:
            inflictor = Inflictor(faulty)
            parts = chapters(self._seed, self._minutes * 60)
            logs = [self._folder / f"drive-{number}.log" for number in range(1, len(parts) + 1)]
            history = History(faulty)
            written = 0
            for number, (chapter, log) in enumerate(zip(parts, logs, strict=True), 1):
                # A vehicle whose disk was put back would read an old log again, so each chapter has a log of its own.
                frames = await asyncio.to_thread(drive.write_log, log, chapter.ends_s - chapter.begins_s)
                written += frames
                self._print(f"seed {self._seed}, chapter {number} of {len(parts)}: {frames:,} frames")
                await faulty.start(log)
                history.check_said()
                images = Images(faulty, self._folder / f"images-{number}")
                await self._suffer_chapter(faulty, inflictor, chapter, images)
                self._print("The rest of the log is being delivered ...")
                await faulty.drain(DRAIN_S)
                if chapter.restored is not None:
                    self._print(f"put back: {chapter.restored}")
                    await asyncio.to_thread(history.put_back, chapter.restored, images)
            self._print("cantools decodes the same logs, and every sample is being compared ...")
            judged = await asyncio.to_thread(
                judge_samples, logs, faulty.vehicle, faulty.world.fleet.lake, history.done, self._folder
            )
            return Verdict(
                seed=self._seed,
                minutes=self._minutes,
                happened=inflictor.happened,
                comparison=judged.comparison,
                ledger=judged.ledger,
                aftermath=replace(judged.aftermath, unsaid=tuple(history.unsaid)),
                hostile_messages=faulty.hostile.messages,
                no_disk=faulty.no_disk,
                said=said(faulty.world.agent.log, faulty.world.receiver.log),
                seconds=time.monotonic() - began_s,
                frames_written=written,
                frames_read=judged.frames_read,
            )

    async def _suffer_chapter(
        self, faulty: FaultyWorld, inflictor: Inflictor, chapter: Chapter, images: Images
    ) -> None:
        self._started_s = time.monotonic() - chapter.begins_s
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._watch(faulty, inflictor))]
            if faulty.unsettled:
                helpers.append(group.create_task(faulty.settle()))
            tracks = [group.create_task(self._suffer(inflictor, track, chapter, images), name=track) for track in Track]
            await asyncio.wait(tracks)
            for helper in helpers:
                helper.cancel()
        faulty.unsettled = False

    async def _suffer(self, inflictor: Inflictor, track: Track, chapter: Chapter, images: Images) -> None:
        image = chapter.images.get(track)
        for fault in chapter.of(faults(self._seed, track, self._minutes * 60)):
            # The track of a program also takes its images, so that no fault kills the program meanwhile.
            if image is not None and chapter.restored is not None and image.at_s < fault.at_s:
                await self._until(image.at_s)
                await images.take(chapter.restored, track, image)
                image = None
            await self._until(fault.at_s)
            self._happening[track] = fault
            await inflictor.inflict(fault)
            del self._happening[track]
        if image is not None and chapter.restored is not None:
            await self._until(image.at_s)
            await images.take(chapter.restored, track, image)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(self._started_s + at_s - time.monotonic())

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
