"""Apply the release in force to the running agent, and send receipts to the fleet.

A bundle is offered, verified, stored and put on trial.  Then its release is applied and a receipt is sent.

    steps of applying a release                   if the step fails
    --------------------------------------------  -------------------------------------------
    1. parse the documents, by kind               nothing has changed
    2. prepare the change of each kind            nothing has changed
    3. write the files on the disk (flagd's)      the earlier files are written again
    4. switch each kind                           (this step cannot fail)

Invariants:

- OFREP, flagd's file and the campaigns follow the same release.  If a release cannot be applied as a whole, the earlier
  release stays in effect.  There is one exception: at start no earlier release is in effect, so the toggles of OFREP
  and the campaigns are switched even if flagd's file cannot be written.
- Each change of the release in force has a receipt, and so have each passed trial and each refused push.
- Telemetry and pushes meet only in this file, and in `vital_signs`, which reads one to judge the other.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import structlog

from agent.errors import AgentError, Transient
from agent.formats.down.chunks import ChunkName
from agent.formats.down.documents import (
    CAMPAIGN,
    KINDS,
    TOGGLES,
    Document,
    Documents,
    Kind,
    by_kind,
    read_documents,
)
from agent.formats.up.columns import Event
from agent.pushes.chunk_intake import ChunkIntake
from agent.pushes.pushes import Pushes
from agent.pushes.readings import Baseline
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.runtime.configuration import CampaignFile
from agent.runtime.effects import CampaignsEffect, Change, Effect, TogglesEffect
from agent.serve.current_flags import CurrentFlags
from agent.system.stopwatch import Stopwatch
from agent.system.tasks import whole
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox

log = structlog.get_logger()


def make_applier(
    pushes: Pushes,
    flags: CurrentFlags,
    collector: Collector,
    outbox: Outbox,
    *,
    local: Sequence[CampaignFile],
    mark: str = "",
    others: Mapping[str, Effect] | None = None,
) -> "Applier":
    """Return an applier for toggles, campaigns and each kind for which `others` has an effect.

    `local` are the vehicle's own campaigns.  The names of all campaigns will begin with `mark`.
    """
    effects: dict[str, Effect] = {
        **(others or {}),
        TOGGLES.name: TogglesEffect(flags),
        CAMPAIGN.name: CampaignsEffect(collector, outbox, mark),
    }
    applier = Applier(pushes, effects, outbox)
    applier.set_local(local)
    return applier


class Applier:
    """Applies releases to the agent, by one effect for each kind of document.

    Call its methods from one event loop only.
    """

    def __init__(
        self, pushes: Pushes, effects: Mapping[str, Effect], outbox: Outbox, *, kinds: Sequence[Kind] = KINDS
    ) -> None:
        self._pushes = pushes
        self._effects = [effects[kind.name] for kind in kinds if kind.name in effects]
        self._kinds = kinds
        self._outbox = outbox
        self._local: Documents = {}
        self._fleet_has_campaigns = False
        self._turn = asyncio.Lock()
        """Held while a release is applied, so that offers, trials and reloads come one after the other."""
        self._in_effect: list[Change] = []
        """The changes that are in effect and also written to the disk; empty before the first release."""
        self.work = Stopwatch()
        """Times how long a release in force has been waiting to take effect."""
        self.baseline: Callable[[], Awaitable[Baseline]] | None = None
        """Returns the present state of the agent, which the trial of a new release is compared with."""
        self.examined = 0
        """The number of bundles that were examined, genuine or forged."""
        self.refused: Counter[str] = Counter()
        self.problem: str | None = None
        """The reason why the release in force could not be applied; None if it was applied."""

    @property
    def version(self) -> int:
        """Return the version of the release in force, or 0 if no release is in force."""
        release = self._pushes.current()
        return 0 if release is None else release.version

    @property
    def in_trial(self) -> bool:
        """Return whether the release in force is still on trial."""
        return self._pushes.in_trial

    @property
    def chunks(self) -> ChunkIntake:
        """Return the intake of chunks, which knows the chunks of large documents that are missing."""
        return self._pushes.chunks

    @property
    def expires(self) -> datetime | None:
        """Return when the fleet's newest signature expires, or None if the vehicle has none."""
        return self._pushes.record.expires

    def sync_request(self) -> bytes:
        """Return the request that tells the fleet what this vehicle has."""
        return self._pushes.sync_request()

    async def start(self) -> None:
        """Apply the release in force or, without a release, the vehicle's own campaigns.

        Call this method before the first frame arrives.

        Raises: Transient if the disk refuses to record this start of a release on trial, or to take a release back.
        """
        async with self._turn:
            await self._pushes.begin()
            # The receipts that wait include that of a release which this start has taken back.
            for outcome in self._pushes.record.receipts:
                await self._send_receipt(outcome)
            await self._put_in_force()

    async def stop(self) -> None:
        """Close this start of the release in force, if any.

        Call this method only when the agent stops on request.
        """
        try:
            await self._pushes.close()
        except Transient as error:
            # The disk is full, so this stop will count as a crash or a power cut.
            log.warning("start_not_closed", reason=str(error))

    def set_local(self, local: Sequence[CampaignFile]) -> None:
        """Set the vehicle's own campaigns, which apply while the release in force has no campaigns.

        They take effect when `start` is called.
        """
        self._local = {
            CAMPAIGN.name: [
                Document(CAMPAIGN.path_of(file.campaign.name), file.source, b"", file.campaign) for file in local
            ]
        }

    async def replace_local(self, local: Sequence[CampaignFile]) -> None:
        """Replace the vehicle's own campaigns at once, after the configuration was read again."""
        async with self._turn:
            before = self._local
            self.set_local(local)
            await self._put_in_force()
            if self._local != before and self._fleet_has_campaigns:
                log.warning(
                    "local_campaigns_not_in_force",
                    reason="the fleet has published campaigns for this vehicle, and they replace its own ones",
                )

    async def offer(self, payload: bytes) -> bool:
        """Examine a bundle and apply its release; return False if it was refused or could not be examined.

        A refused bundle does not change the release in force, and a receipt says why.  Errors are logged, not raised.
        """
        try:
            outcome = await self._pushes.offer(payload, await self.baseline() if self.baseline else None)
        except AgentError as error:
            # The disk is full, no process can be started, or root.json is unusable.  The release in force stays.
            log.error("push_postponed", reason=str(error))
            return False
        await whole(self.settle(outcome))
        self.examined += 1
        return outcome.result is not Result.REFUSED

    async def take_chunk(self, payload: bytes) -> ChunkName | None:
        """Store a chunk of a large document and return its name; return None if it was refused or could not be stored.

        A refused chunk changes nothing, and a receipt says why.  Errors are logged, not raised.
        """
        try:
            taken = await whole(asyncio.to_thread(self._pushes.chunks.take, payload))
        except Transient as error:
            # The disk is full.  The chunk is asked for again.
            log.error("chunk_postponed", reason=str(error))
            return None
        if isinstance(taken, PushOutcome):
            await whole(self.settle(taken))
            return None
        return taken

    async def settle(self, outcome: PushOutcome) -> None:
        """Apply the release that is in force after `outcome`, if it has changed, and send the receipt."""
        async with self._turn:
            if outcome.result is Result.REFUSED:
                self.refused[str(outcome.reason)] += 1
            if outcome.result in (Result.APPLIED, Result.REVERTED):
                await self._put_in_force()
            await self._send_receipt(outcome)

    async def _put_in_force(self) -> None:
        with self.work.step():
            await self._apply()

    async def _apply(self) -> None:
        """Apply the release in force, in the four steps of the module text."""
        try:
            # Preparing toggles of the greatest size takes 0.7 s on a PC, and several seconds on a head unit.
            changes = await asyncio.to_thread(self._prepare)
        except AgentError as error:
            # This failure is unlikely, because the release was validated before it was stored.  The problem ends the
            # trial of the release, and the last known good release returns.
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

    def _prepare(self) -> list[Change]:
        """Parse the documents of the release in force, and prepare its changes.

        If the release has no document of a kind, the vehicle's own documents of that kind apply.
        Raises: AgentError if a document cannot be used.
        """
        release = self._pushes.current()
        contents = {} if release is None else release.documents
        pushed = by_kind(read_documents(contents, self._kinds, prefix=f"push {self.version}: "), self._kinds)
        self._fleet_has_campaigns = bool(pushed.get(CAMPAIGN.name))
        documents = {name: pushed[name] or self._local.get(name, ()) for name in pushed}
        return [effect.prepare(documents) for effect in self._effects]

    async def _write(self, changes: Sequence[Change]) -> str | None:
        """Write the files of `changes`.  Return the problem if the disk refuses a file, and None otherwise."""
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
                # At start there is no earlier state to keep, and a full disk must not stop collection and OFREP.  The
                # file of an earlier process would contradict the release.  Removing the file needs no space.
                await asyncio.to_thread(change.withdraw)
        return problem

    def _write_again(self, earlier: Sequence[Change]) -> None:
        for change in earlier:
            try:
                change.write()
            except Transient as error:
                # Because of the first problem, the release on trial is reverted, and the revert writes this file again.
                log.error("earlier_release_not_written", version=self.version, reason=str(error))

    async def report(self, event: Event) -> None:
        """Store an event about a release for the fleet at once.  The disk may be full."""
        self._outbox.add_event(event)
        await asyncio.to_thread(self._outbox.flush)

    async def _send_receipt(self, outcome: PushOutcome) -> None:
        # A refusal may be the only sign that the fleet's keys or signatures need care.
        say = log.warning if outcome.result is Result.REFUSED else log.info
        say("push", result=str(outcome.result), version=outcome.version, reason=outcome.reason and str(outcome.reason))
        event = receipt(outcome, time.time_ns() // 1_000)
        if event is not None:
            await self.report(event)
        if self._outbox.problem is None:
            await self._pushes.receipt_stored(outcome)
