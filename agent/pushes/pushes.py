"""Take the bundles that arrive for this vehicle, run the trials of their releases, and take back what crashes.

A bundle takes effect in four steps (`Pushes.offer`):

    1. examine the bundle in the verifier process
    2. store the release (if large documents are missing, fetch their chunks first, and examine a bundle again)
    3. put the release on trial by one durable record
    4. return the release from `current()`

Invariants:

- A bundle that is not trusted changes nothing on the disk.
- Trusted metadata is kept even if the documents of its release are unusable.  The release in force may then be older
  than the metadata, so the record names the release separately.
- Bundles are handled one after the other.  One thread at a time writes the record, even if the caller is cancelled.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import BUNDLE_BYTES
from agent.pushes import outcomes, requests, trial
from agent.pushes.built import built_at_s
from agent.pushes.chunk_intake import ChunkIntake
from agent.pushes.examine import examine
from agent.pushes.health import HEALTHY, PROGRESS, Breach, Health
from agent.pushes.readings import Baseline
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.record import Record
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.pushes.starts import Starts
from agent.pushes.store import Store
from agent.system.boot import boot_id
from agent.system.tasks import whole

BUILT_AT_S: Final = built_at_s()
"""The earliest possible time (Unix epoch).  An unset clock may show 1970, and then old metadata would look valid."""

Examiner = Callable[[Question], Awaitable[Verdict]]
"""A function that examines a bundle: `examine`, or a substitute in tests."""

log = structlog.get_logger()


@dataclass(slots=True)
class _State:
    """Holds the state that changes while the agent runs and is not stored.

    `release` was applied at `applied_at_s` on the monotonic clock.  If `from_scratch` is true, the next request asks
    the fleet for all files, because the latest bundle lacked a file (`Reason.TRUNCATED`).
    """

    release: Release | None
    applied_at_s: float
    from_scratch: bool = False


class Pushes:
    """Owns the push store, and decides which release is in force.

    Create an instance with `open`, and call its methods from one event loop only.
    """

    def __init__(
        self,
        store: Store,
        trusted_root: bytes,
        vehicle: Attributes,
        *,
        now_s: Callable[[], float],
        examine_bundle: Examiner,
        boot: str,
    ) -> None:
        self._store = store
        self._examine_bundle = examine_bundle
        self._trusted_root = trusted_root
        self._vehicle = vehicle
        self._now_s = now_s
        self._boot = boot
        self._one_at_a_time = asyncio.Lock()
        self._starts = Starts(store, boot)
        self.chunks = ChunkIntake(store, vehicle.vehicle)
        self._state = _State(store.in_force(store.record.slots), 0.0)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        trusted_root: bytes,
        vehicle: Attributes,
        now_s: Callable[[], float] = time.time,
        examine_bundle: Examiner = examine,
    ) -> "Pushes":
        """Open the push store in `folder`, and create the store if it is missing.  Blocking.

        `trusted_root` is the content of the vehicle's root.json.  Before the release is applied, the caller must call
        `begin`, which records this start.

        Raises: Permanent if the folder cannot be used.
        """
        store = Store.open(folder)
        if store.damaged:
            log.error("push_state_damaged", folder=str(folder), remedy="the fleet sends everything again")
        return cls(store, trusted_root, vehicle, now_s=now_s, examine_bundle=examine_bundle, boot=boot_id())

    @property
    def in_trial(self) -> bool:
        """Return whether the release in force is still on trial."""
        return self._store.record.slots.trial is not None

    def current(self) -> Release | None:
        """Return the release in force, which may be on trial, or None if the vehicle's own configuration applies."""
        return self._state.release

    def sync_request(self) -> bytes:
        """Return the request that the agent publishes on `hu/v1/sync/<vehicle>` after every connect and every nudge."""
        if self._state.from_scratch:
            return requests.for_all_files(self._vehicle)
        return requests.for_news(self._vehicle, self._store.record, self._state.release)

    @property
    def record(self) -> Record:
        """Return what is stored: the receipts that wait, for example, and the state before a trial."""
        return self._store.record

    async def offer(self, payload: bytes, before: Baseline | None = None) -> PushOutcome:
        """Examine a bundle of unknown origin, and put its release on trial if the vehicle can use it.

        The bundle comes from `hu/v1/push/<vehicle>`.  `before` is the state of the agent, which a trial is compared
        with.  If the result is APPLIED, the caller must apply the release that
        `current()` returns.

        Raises: Transient if the machine failed (disk full, no process), Permanent if the vehicle's own root.json is
        unusable.  After either error the release in force stays.
        """
        async with self._one_at_a_time:
            if len(payload) > BUNDLE_BYTES:
                return PushOutcome(
                    Result.REFUSED,
                    0,
                    Reason.OVERSIZED,
                    f"the bundle has {len(payload)} bytes, but {BUNDLE_BYTES} is the limit; publish fewer documents",
                )
            # Most bundles that arrive say that nothing is new.  This check saves a process that takes seconds to start.
            if not await asyncio.to_thread(self._is_news, payload):
                return PushOutcome(Result.UNCHANGED, self._store.record.floor.targets)
            verdict = await self._examine_bundle(await asyncio.to_thread(self._question, payload))
            # Even if the caller is cancelled, `whole` lets the work end, so that record and state agree.
            return await whole(asyncio.to_thread(self._settle, verdict, before))

    async def begin(self) -> PushOutcome | None:
        """Count how the previous start ended, and record this start, if a release is in force.

        After too many crashes or power cuts, or if the stored release on trial is damaged, this call takes the release
        back and returns the outcome.  Otherwise it returns None.  In both cases, the caller must then apply the release
        that `current()` returns.

        Raises: Transient if the disk is full and the release is on trial or must be taken back.  The start is then not
        recorded, and the caller must not apply the release.
        """
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._begin))

    async def close(self) -> None:
        """Close this start, if this process opened it.

        Call this method when the agent stops on request, because such a stop is not a failure of the release.  If no
        release is in force, nothing happens.

        Raises: Transient if the disk is full.
        """
        async with self._one_at_a_time:
            await whole(asyncio.to_thread(self._starts.close))

    async def poll_trial(self, *, trial_s: float, health: Health) -> PushOutcome | None:
        """Revert the release on trial if a bound is broken, or confirm it after `trial_s` s if no evidence is missing.

        Without a trial, this start counts as good after STEADY_S.  Returns the outcome if this call ended the trial,
        and None otherwise.  Call this method every few seconds.
        """
        running_s = time.monotonic() - self._state.applied_at_s
        if not self.in_trial:
            if running_s >= trial.STEADY_S and self._starts.opened:
                async with self._one_at_a_time:
                    await whole(asyncio.to_thread(self._starts.count_as_good))
            return None
        match trial.judge(running_s=running_s, trial_s=trial_s, health=health):
            case trial.Decision.CONFIRM:
                return await self.confirm_trial(health)
            case trial.Decision.REVERT:
                async with self._one_at_a_time:
                    return await whole(asyncio.to_thread(self._revert, health))
        if running_s >= trial_s:
            async with self._one_at_a_time:
                await whole(asyncio.to_thread(self._starts.endure))
        return None

    async def confirm_trial(self, health: Health = HEALTHY) -> PushOutcome | None:
        """Confirm the release on trial.  Returns None if no release is on trial."""
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(outcomes.confirm, self._store, health))

    async def fail_trial(self, detail: str) -> PushOutcome | None:
        """Revert from the release on trial to the last known good one.

        The caller then applies the release that `current()` returns.  Returns None if no release is on trial.
        """
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._revert, Health(Breach("applied", detail))))

    def take_back_hanging(self, detail: str) -> PushOutcome | None:
        """Take back the release on trial on the disk, or return None if there is none.  Blocking.

        A thread calls this while the event loop hangs, and then ends the process.  Raises: Transient if the disk is
        full.
        """
        return outcomes.revert(self._store, Health(Breach(PROGRESS, detail)))

    async def changed_documents(self) -> set[str]:
        """Return the paths of documents in which the release on trial differs from the last known good one."""
        return await asyncio.to_thread(outcomes.changed_documents, self._store)

    async def receipt_stored(self, outcome: PushOutcome) -> None:
        """Forget the receipt of `outcome`, because its event is durable.  The disk may be full."""
        async with self._one_at_a_time:
            await whole(asyncio.to_thread(outcomes.receipt_stored, self._store, outcome))

    def _begin(self) -> PushOutcome | None:
        release, outcome = self._starts.begin()
        self._state = _State(release, time.monotonic())
        return outcome

    def _is_news(self, payload: bytes) -> bool:
        """Return whether the verifier must see this bundle."""
        record = self._store.record
        unpacked = record.floor.targets in requests.settled(record, self._state.release)
        # Even if the metadata is not new, its release may have had to wait for chunks that are here now.
        return payload != requests.nothing_new(record) or not (unpacked or self.chunks.missing())

    def _question(self, payload: bytes) -> Question:
        record = self._store.record
        return Question(
            bundle=payload,
            trusted_root=self._trusted_root,
            metadata=record.metadata,
            contents=self._store.target_files(self._state.release),
            floor=record.floor,
            settled=requests.settled(record, self._state.release),
            # A clock may be unset or set back; a signed time and the time of the build have certainly passed.
            now_s=max(int(self._now_s()), record.time_s, BUILT_AT_S),
            vehicle=self._vehicle,
        )

    def _settle(self, verdict: Verdict, before: Baseline | None) -> PushOutcome:
        if verdict.reason is not None and not verdict.metadata:
            # A truncated bundle lacks a file.  The fleet believes that this vehicle has the file, so the next request
            # asks for all files.
            self._state.from_scratch = verdict.reason is Reason.TRUNCATED
            return PushOutcome(Result.REFUSED, 0, verdict.reason, verdict.detail)
        # From here on the metadata is trusted.  The floor of versions rises even if the documents are unusable, because
        # an older release could otherwise still be offered.
        record, version = self._store.record, verdict.versions.targets
        slots, release = record.slots, self._state.release
        if verdict.reason is not None:
            slots = trial.refuse(slots, version)
        elif verdict.release is not None:
            release = self._store.complete(verdict.release)
            slots = trial.commit(slots, self._store.add_release(release), self._boot)
            # A release that replaces one on trial is compared with the state before both.
            before = before if record.slots.trial is None else record.before
        outcome = outcomes.outcome_of(verdict)
        record = msgspec.structs.replace(
            record,
            floor=verdict.versions,
            time_s=max(record.time_s, verdict.signed_at_s),
            metadata=verdict.metadata,
            slots=slots,
            wanted=verdict.wanted,
            before=before if verdict.release is not None else record.before,
        )
        self._store.commit(outcomes.with_receipt(record, outcome))
        # A release may want a document that the vehicle has already, and whose chunks the flash has damaged since.
        self._store.remove_damaged()
        if outcome.result is Result.APPLIED:
            # The commit opened the first start of the trial.
            self._state, self._starts.opened = _State(release, time.monotonic()), True
        self._state.from_scratch = False
        return outcome

    def _revert(self, health: Health) -> PushOutcome | None:
        outcome = outcomes.revert(self._store, health)
        if outcome is not None:
            self._state = _State(self._store.in_force(self._store.record.slots), time.monotonic())
        return outcome
