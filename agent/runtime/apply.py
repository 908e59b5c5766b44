"""Put the release in force into effect in the running agent, and send the receipts.

    offer -> verified, stored, on trial -> put in force -> receipt
    put in force:  1. parse the documents, by kind                    a fault ends here, and nothing has changed
                   2. prepare the effect of each kind                 likewise
                   3. write what must be on the disk (flagd's file)   a refusal by the disk restores what was written
                   4. switch each kind                                cannot fail

Invariants: a release is applied whole, or the one before stays, in OFREP, in flagd's file and in the campaigns alike.
Only at start, where there is none before, a release takes effect without the file if the disk refuses it.  Exactly one
receipt says what became of a push.  Telemetry and pushes never meet except here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from agent.errors import AgentError, Transient
from agent.formats.down.documents import CAMPAIGN, KINDS, TOGGLES, Document, Documents, Kind, by_kind, read_documents
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.runtime.configuration import CampaignFile
from agent.runtime.effects import CampaignsEffect, Change, Effect, TogglesEffect
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from agent.system.tasks import whole
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox

POLL_S: Final = 1.0
"""How often a trial is judged; a trial lasts minutes."""

log = structlog.get_logger()


def make_applier(
    pushes: Pushes,
    toggles: ToggleService,
    collector: Collector,
    outbox: Outbox,
    *,
    flagd_file: FlagdFile,
    local: Sequence[CampaignFile],
) -> "Applier":
    """Return an applier for all kinds of documents; `local` are the vehicle's own campaigns."""
    effects: dict[str, Effect] = {
        TOGGLES.name: TogglesEffect(toggles, flagd_file),
        CAMPAIGN.name: CampaignsEffect(collector, outbox),
    }
    applier = Applier(pushes, effects, outbox)
    applier.set_local(local)
    return applier


class Applier:
    """Applies pushes to the agent by the effects of each kind.  Methods are for one event loop."""

    def __init__(
        self, pushes: Pushes, effects: Mapping[str, Effect], outbox: Outbox, *, kinds: Sequence[Kind] = KINDS
    ) -> None:
        self._pushes = pushes
        self._effects = [effects[kind.name] for kind in kinds]
        self._kinds = kinds
        self._outbox = outbox
        self._local: Documents = {}
        self._turn = asyncio.Lock()
        """Held while something takes effect: offers, trials and reloads come one after the other."""
        self._in_effect: list[Change] = []
        """The changes that are in effect and agree with the disk; empty before the first."""
        self.examined = 0
        """How many bundles were examined, from the fleet or from anyone else who could send one."""
        self.refused: Counter[str] = Counter()
        self.problem: str | None = None
        """Why the release in force could not be put into effect; None where it was."""

    @property
    def version(self) -> int:
        """The version of the release in force; 0 where there is none and the local campaigns hold."""
        release = self._pushes.current()
        return 0 if release is None else release.version

    @property
    def in_trial(self) -> bool:
        """Whether the release in force has yet to prove itself."""
        return self._pushes.in_trial

    def sync_request(self) -> bytes:
        """Return the request that tells the fleet what this vehicle has."""
        return self._pushes.sync_request()

    async def start(self) -> None:
        """Put the release in force, or the local campaigns, into effect.  Call it before the first frame.

        Raises: Transient where the disk does not take the count of attempts of a release on trial.
        """
        async with self._turn:
            reverted = await self._pushes.begin()
            if reverted is not None:
                await self._send_receipt(reverted)
            await self._put_in_force()

    async def stop(self) -> None:
        """Give back the attempt of a trial, because the agent stops on request and the release is not to blame."""
        try:
            await self._pushes.give_back()
        except Transient as error:
            # The disk is full, so this stop will count as a crash.  That costs one of three attempts.
            log.warning("trial_attempt_not_given_back", reason=str(error))

    def set_local(self, local: Sequence[CampaignFile]) -> None:
        """Set the vehicle's own campaigns, which hold while a release has none; `start` puts them into effect."""
        self._local = {
            CAMPAIGN.name: [
                Document(CAMPAIGN.path_of(file.campaign.name), file.source, b"", file.campaign) for file in local
            ]
        }

    async def replace_local(self, local: Sequence[CampaignFile]) -> None:
        """Replace the vehicle's own campaigns at once, because the configuration was read again."""
        async with self._turn:
            self.set_local(local)
            await self._put_in_force()

    async def offer(self, payload: bytes) -> bool:
        """Take a bundle, and return False where it was refused or could not be examined.

        A refused bundle changes nothing, and a receipt says why.  Raises nothing.
        """
        try:
            outcome = await self._pushes.offer(payload)
        except AgentError as error:
            # The disk is full, no process can be started, or root.json is unusable: what is in force stays.
            log.error("push_postponed", reason=str(error))
            return False
        await whole(self._settle(outcome))
        self.examined += 1
        return outcome.result is not Result.REFUSED

    async def watch_trials(self, trial_s: float, poll_s: float = POLL_S) -> None:
        """Confirm a release that works, and revert one that does not.  Runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(poll_s, trial_s))
            try:
                outcome = await self._pushes.poll_trial(trial_s=trial_s, healthy=self.problem is None)
            except Transient as error:
                # The disk is full; the next poll judges again.
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
            await self._send_receipt(outcome)

    async def _put_in_force(self) -> None:
        """Apply the release in force; the steps are those of the module text."""
        try:
            documents = self._documents()
            changes = [effect.prepare(documents) for effect in self._effects]
        except AgentError as error:
            # The release was validated before it was stored.  Should it fail all the same, its trial ends for this
            # problem, and the last good release returns.
            self.problem = str(error)
            log.error("release_unusable", version=self.version, reason=self.problem)
            return
        self.problem = await self._write(changes)
        if self.problem is not None and self._in_effect:
            return
        self._in_effect = changes if self.problem is None else []
        facts: dict[str, object] = {}
        for change in changes:
            facts |= await change.switch()
        await asyncio.to_thread(self._outbox.flush)
        log.info("in_force", release=self.version, **facts)

    def _documents(self) -> Documents:
        """Parse the release in force.  Kinds that it has no document of are those of the vehicle itself."""
        release = self._pushes.current()
        contents = {} if release is None else release.documents
        pushed = by_kind(read_documents(contents, self._kinds, prefix=f"push {self.version}: "), self._kinds)
        return {name: pushed[name] or self._local.get(name, ()) for name in pushed}

    async def _write(self, changes: Sequence[Change]) -> str | None:
        """Write what `changes` need on the disk; return the problem where the disk refuses one."""
        problem: str | None = None
        for done, change in enumerate(changes):
            try:
                await asyncio.to_thread(change.write)
            except Transient as error:
                problem = str(error)
                log.error("release_not_written", version=self.version, reason=problem)
                if self._in_effect:
                    await asyncio.to_thread(self._write_again, self._in_effect[:done])
                    return problem
                # At start there is no earlier state to keep, and a full disk must not stop collection and OFREP.  A
                # file of an earlier process would contradict them; removing it needs no space.
                await asyncio.to_thread(change.withdraw)
        return problem

    def _write_again(self, earlier: Sequence[Change]) -> None:
        for change in earlier:
            try:
                change.write()
            except Transient as error:
                # The release on trial is reverted for the first problem, which writes this once more.
                log.error("earlier_release_not_written", version=self.version, reason=str(error))

    async def _send_receipt(self, outcome: PushOutcome) -> None:
        log.info(
            "push", result=str(outcome.result), version=outcome.version, reason=outcome.reason and str(outcome.reason)
        )
        event = receipt(outcome, time.time_ns() // 1_000)
        if event is not None:
            self._outbox.add_event(event)
            await asyncio.to_thread(self._outbox.flush)
