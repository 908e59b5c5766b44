"""Put the release in force into effect in the running agent: toggles served, campaigns collected, receipts sent.

Invariant: a release is applied whole or the one before stays, in OFREP, in the file for flagd and in the campaigns
alike; whatever happens to a push, exactly one receipt says so.  Only at start, where there is none before, the release
takes effect without the file if the disk refuses it.  Telemetry and pushes never meet: this is the place where `app`
lets one change the other.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from agent.errors import AgentError, Transient
from agent.formats.up.columns import Event
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.runtime.configuration import CampaignFile, parse_campaigns
from agent.serve.toggles import ToggleService, evaluator_of, remove_flagd_file, write_flagd_file
from agent.system.tasks import whole
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox

_NAMES_LETTERS: Final = 2_000  # an event travels in one batch, of at least 4,096 bytes (telemetry.batch_max_bytes)
log = structlog.get_logger()


class Applier:
    """Applies pushes to `toggles` and `collector`; `local` are the campaigns that hold until the fleet pushes some."""

    def __init__(
        self,
        pushes: Pushes,
        toggles: ToggleService,
        collector: Collector,
        outbox: Outbox,
        *,
        runtime_folder: Path,
        local: Sequence[CampaignFile],
    ) -> None:
        self._pushes = pushes
        self._toggles = toggles
        self._collector = collector
        self._outbox = outbox
        self._runtime_folder = runtime_folder
        self._local = tuple(local)
        self._turn = asyncio.Lock()  # offers, trials and reloads take effect one after the other
        self._has_file = False  # whether toggles, campaigns and the file for flagd are in effect and agree
        self.examined = 0
        """Bundles that came from the fleet, or from whoever could send them."""
        self.refused: Counter[str] = Counter()
        self.problem: str | None = None
        """Why the release in force could not be put into effect; None where it was."""

    @property
    def version(self) -> int:
        """Version of the release in force; 0: none, the local campaigns hold."""
        release = self._pushes.current()
        return 0 if release is None else release.version

    @property
    def in_trial(self) -> bool:
        """Whether the release in force has yet to prove itself."""
        return self._pushes.in_trial

    def sync_request(self) -> bytes:
        """What to ask the fleet with: what this vehicle has."""
        return self._pushes.sync_request()

    async def start(self) -> None:
        """Put the release in force, or the local campaigns, into effect.  Before the first frame.

        Raises Transient where the disk does not take that a release on trial is attempted.
        """
        async with self._turn:
            reverted = await self._pushes.begin()
            if reverted is not None:
                await self._tell(reverted)
            await self._put_in_force()

    async def stop(self) -> None:
        """The agent stops because it was told to, not because of a release: no attempt of a trial is used up."""
        try:
            await self._pushes.give_back()
        except Transient as error:  # the disk is full: this stop counts as a crash
            log.warning("trial_attempt_not_given_back", reason=str(error))

    async def replace_local(self, local: Sequence[CampaignFile]) -> None:
        """Other local campaigns: the configuration was read again."""
        async with self._turn:
            self._local = tuple(local)
            await self._put_in_force()

    async def offer(self, payload: bytes) -> bool:
        """A bundle came in; False where it was refused or could not be examined.

        Raises nothing: refused, it changes nothing, and a receipt says why.
        """
        try:
            outcome = await self._pushes.offer(payload)
        except AgentError as error:  # a full disk, no process to be had, an unusable root.json: what is in force stays
            log.error("push_postponed", reason=str(error))
            return False
        await whole(self._settle(outcome))
        self.examined += 1
        return outcome.result is not Result.REFUSED

    async def watch_trials(self, trial_s: float, poll_s: float = 1.0) -> None:
        """Confirm a release that did well, revert one that did not.  Runs until cancelled."""
        while True:
            await asyncio.sleep(min(poll_s, trial_s))
            try:
                outcome = await self._pushes.poll_trial(trial_s=trial_s, healthy=self.problem is None)
            except Transient as error:  # the disk is full: judged again at the next poll
                log.warning("trial_postponed", reason=str(error))
                continue
            if outcome is not None:
                await whole(self._settle(outcome))

    async def _settle(self, outcome: PushOutcome) -> None:
        async with self._turn:
            if outcome.result is Result.REFUSED:
                self.refused[str(outcome.reason)] += 1
            if outcome.result in (Result.APPLIED, Result.REVERTED):
                await self._put_in_force()
            await self._tell(outcome)

    async def _put_in_force(self) -> None:
        release = self._pushes.current()
        pushed = [] if release is None else [(f"push {release.version}: {n}", d) for n, d in release.campaigns]
        toggles = None if release is None else release.toggles
        try:
            campaigns = parse_campaigns(pushed) if pushed else self._local
            evaluator = evaluator_of(toggles)
        except AgentError as error:
            # Validated before it was stored; should it fail all the same, the trial ends and the last good one returns.
            self.problem = str(error)
            log.error("release_unusable", version=self.version, reason=self.problem)
            return
        # The file comes first, because it is the one step that can fail: until it is written nothing has changed.
        self.problem = await self._write_flagd_file(toggles)
        if self.problem is not None and self._has_file:
            return  # What is in effect stays, and agrees; a release on trial is reverted for this problem.
        self._has_file = self.problem is None
        self._toggles.replace(evaluator)
        before = await self._collector.set_campaigns([file.campaign for file in campaigns])
        names = [f"{campaign.name}@{campaign.revision}" for campaign in self._collector.campaigns]
        self._outbox.add_event(_campaigns_event(names, before))
        await asyncio.to_thread(self._outbox.flush)
        log.info("in_force", release=self.version, campaigns=names, toggles=len(self._toggles.keys))

    async def _write_flagd_file(self, toggles: bytes | None) -> str | None:
        """Write the file for flagd's providers; return the problem where the disk refuses it."""
        try:
            await asyncio.to_thread(write_flagd_file, self._runtime_folder, toggles)
        except Transient as error:
            log.error("flagd_file_not_written", reason=str(error))
            if not self._has_file:
                # At start there is no earlier state to keep, and a full disk must not stop collection and OFREP.  A
                # file of an earlier process would contradict them; removing it needs no space.
                await asyncio.to_thread(remove_flagd_file, self._runtime_folder)
            return str(error)
        return None

    async def _tell(self, outcome: PushOutcome) -> None:
        log.info(
            "push", result=str(outcome.result), version=outcome.version, reason=outcome.reason and str(outcome.reason)
        )
        event = receipt(outcome, time.time_ns() // 1_000)
        if event is not None:
            self._outbox.add_event(event)
            await asyncio.to_thread(self._outbox.flush)


def _campaigns_event(names: Sequence[str], before: Mapping[str, int]) -> Event:
    """Which campaigns hold from here on, as far as there is room, and how many frames of each bus came before
    (`frames.<bus>`)."""
    told = ",".join(names)[:_NAMES_LETTERS]
    return Event(
        time.time_ns() // 1_000,
        "campaigns_in_force",
        {"campaigns": told, **{f"frames.{bus}": count for bus, count in sorted(before.items())}},
    )
