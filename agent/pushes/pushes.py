"""The one door through which the fleet changes what this vehicle does.

    offer:  1. examine the bundle in the verifier process
            2. store the release
            3. put it in force by one durable record
            4. show it in `current()`

Invariants:

- A refused bundle changes nothing on the disk.
- Trusted metadata may advance although its documents are unusable; the record keeps apart what is applied.
- Offers are taken one after the other.  One thread at a time writes the record, even where the caller is cancelled.
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
from agent.formats.down.bundle import BUNDLE_BYTES, TIMESTAMP, SyncRequest, Versions, build_bundle, build_request, have
from agent.pushes import trial
from agent.pushes.built import built_at_s
from agent.pushes.examine import examine
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.pushes.store import Store
from agent.system.tasks import whole

BUILT_AT_S: Final = built_at_s()
"""The earliest time that can be.  A vehicle without a clock may show 1970, when no metadata would be expired."""

Examiner = Callable[[Question], Awaitable[Verdict]]
"""The verifier process, or what a test puts in its place."""

log = structlog.get_logger()


@dataclass(slots=True)
class _State:
    """The state that changes while the agent runs, and is not stored.

    `applied_at_s` is the time of the monotonic clock when `release` was applied.  `from_scratch` asks the fleet for
    everything, because the last answer lacked a file.
    """

    release: Release | None
    applied_at_s: float
    from_scratch: bool = False


class Pushes:
    """The push store's owner.  Make it with `open`; methods are for one event loop."""

    def __init__(
        self,
        store: Store,
        trusted_root: bytes,
        vehicle: Attributes,
        *,
        now_s: Callable[[], float],
        examine_bundle: Examiner,
    ) -> None:
        self._store = store
        self._examine_bundle = examine_bundle
        self._trusted_root = trusted_root
        self._vehicle = vehicle
        self._now_s = now_s
        self._one_at_a_time = asyncio.Lock()
        self._attempting = False
        """Whether the attempt of a trial that was counted last is that of this process."""
        self._state = _State(self._load(store.record.slots), 0.0)

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
        """Open the push store in `folder`, and create it where it is missing.  Blocking.

        `trusted_root` is the content of the vehicle's root.json.  No attempt of a trial is counted before `begin`.
        Raises: Permanent where the folder cannot be used.
        """
        store = Store.open(folder)
        if store.damaged:
            log.error("push_state_damaged", folder=str(folder), remedy="the fleet sends everything again")
        return cls(store, trusted_root, vehicle, now_s=now_s, examine_bundle=examine_bundle)

    @property
    def in_trial(self) -> bool:
        """Whether the release in force has yet to prove itself."""
        return self._store.record.slots.trial is not None

    def current(self) -> Release | None:
        """Return the release in force, on trial or proved.

        Where it is None, the vehicle's own configuration applies.
        """
        return self._state.release

    def sync_request(self) -> bytes:
        """Return the request for `hu/v1/sync/<vehicle>`, to be sent after every connect and every nudge."""
        record = self._store.record
        if self._state.from_scratch or not record.metadata:
            return build_request(SyncRequest(self._vehicle.vehicle, Versions()))
        contents = () if self._state.release is None else self._state.release.documents.values()
        return build_request(
            SyncRequest(
                vehicle=self._vehicle.vehicle,
                held=record.floor,
                applied=0 if self._state.release is None else self._state.release.version,
                refused=record.slots.refused,
                have=tuple(have(content) for content in contents),
            )
        )

    async def offer(self, payload: bytes) -> PushOutcome:
        """Take a bundle from `hu/v1/push/<vehicle>`, of unknown origin.

        After APPLIED the caller applies the release that `current()` returns.

        Raises: Transient where the machine failed (disk full, no process), so that what is in force stays and the
        fleet can be asked again; Permanent where the vehicle's own root.json is unusable.
        """
        async with self._one_at_a_time:
            if len(payload) > BUNDLE_BYTES:
                return PushOutcome(Result.REFUSED, 0, Reason.OVERSIZED, f"bundle of {len(payload)} bytes")
            # Most answers after a nudge or a connect are this one; it saves starting a process that takes seconds.
            if payload == self._nothing_new():
                return PushOutcome(Result.UNCHANGED, self._store.record.floor.targets)
            verdict = await self._examine_bundle(self._question(payload))
            # `whole`: a cancelled caller must not leave a record that is written and a state that is not.
            return await whole(asyncio.to_thread(self._settle, verdict))

    async def begin(self) -> PushOutcome | None:
        """Count an attempt of a running trial.  The caller then applies the release that `current()` returns.

        Returns an outcome if the trial ended instead.  Raises: Transient if the disk is full; the attempt is then not
        counted, and the caller must not apply the release.
        """
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._begin))

    async def give_back(self) -> None:
        """Take back the attempt of a trial, because the agent stops on request and not because of the release."""
        async with self._one_at_a_time:
            await whole(asyncio.to_thread(self._give_back))

    async def poll_trial(self, *, trial_s: float, healthy: bool) -> PushOutcome | None:
        """Confirm or end a trial when it is time to, and return None otherwise.  Call it every few seconds."""
        if not self.in_trial:
            return None
        running_s = time.monotonic() - self._state.applied_at_s
        match trial.judge(running_s=running_s, trial_s=trial_s, healthy=healthy):
            case trial.Decision.CONFIRM:
                return await self.confirm_trial()
            case trial.Decision.REVERT:
                return await self.fail_trial("the agent is not healthy with it")
        return None

    async def confirm_trial(self) -> PushOutcome | None:
        """Confirm the release on trial; return None where there is none."""
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._confirm))

    async def fail_trial(self, detail: str) -> PushOutcome | None:
        """Go back from the release on trial to the last known good one, and apply `current()` afterwards.

        Returns None where no release is on trial.
        """
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._revert, detail))

    def _begin(self) -> PushOutcome | None:
        before = self._store.record.slots
        after = trial.restart(before)
        release = self._load(after)
        # A release whose file is damaged cannot prove itself, so its trial ends.
        if release is None and after.trial is not None:
            log.error("push_damaged", version=after.trial.version)
            after = trial.revert(after)
            release = self._load(after)
        if before != after:
            self._store.commit(msgspec.structs.replace(self._store.record, slots=after))
        self._attempting = True
        self._state = _State(release, time.monotonic())
        if before.trial is None or after.trial is not None:
            return None
        detail = f"not healthy within {before.attempts} starts"
        return PushOutcome(Result.REVERTED, before.trial.version, Reason.UNHEALTHY, detail)

    def _give_back(self) -> None:
        record = self._store.record
        slots = trial.give_back(record.slots) if self._attempting else record.slots
        if slots != record.slots:
            self._store.commit(msgspec.structs.replace(record, slots=slots))
        self._attempting = False

    def _load(self, slots: trial.Slots) -> Release | None:
        return None if slots.in_force is None else self._store.release(slots.in_force)

    def _nothing_new(self) -> bytes | None:
        """Return the bytes of the answer to a vehicle that is up to date: the timestamp that it holds, and no more."""
        held = self._store.record.metadata.get("timestamp.json")
        return None if held is None else build_bundle({TIMESTAMP: held})

    def _question(self, payload: bytes) -> Question:
        record = self._store.record
        # A release whose file was damaged is unpacked again although its version was applied before.
        settled = (record.slots.refused,) if self._state.release is None else record.slots.settled
        return Question(
            bundle=payload,
            trusted_root=self._trusted_root,
            metadata=record.metadata,
            contents=() if self._state.release is None else tuple(self._state.release.documents.values()),
            floor=record.floor,
            settled=settled,
            # A clock may be unset or set back; a signed time and the time of the build have certainly passed.
            now_s=max(int(self._now_s()), record.time_s, BUILT_AT_S),
            vehicle=self._vehicle,
        )

    def _settle(self, verdict: Verdict) -> PushOutcome:
        if verdict.reason is not None and not verdict.metadata:
            # The fleet left out what it took this vehicle to hold.  The next answer shall leave out nothing.
            self._state.from_scratch = verdict.reason is Reason.TRUNCATED
            return PushOutcome(Result.REFUSED, 0, verdict.reason, verdict.detail)
        # From here on the metadata is trusted, and the floor of versions rises even where the documents are unusable:
        # otherwise an older release could still be offered.
        record, version = self._store.record, verdict.versions.targets
        slots, release = record.slots, self._state.release
        if verdict.reason is not None:
            slots = trial.refuse(slots, version)
        elif verdict.release is not None:
            slots, release = trial.commit(slots, self._store.add_release(verdict.release)), verdict.release
        self._store.commit(
            msgspec.structs.replace(
                record,
                floor=verdict.versions,
                time_s=max(record.time_s, verdict.signed_at_s),
                metadata=verdict.metadata,
                slots=slots,
            )
        )
        if verdict.reason is not None:
            self._state.from_scratch = False
            return PushOutcome(Result.REFUSED, version, verdict.reason, verdict.detail)
        if verdict.release is None:
            self._state.from_scratch = False
            return PushOutcome(Result.UNCHANGED, version)
        # The commit counted the first attempt of the trial.
        self._state, self._attempting = _State(release, time.monotonic()), True
        return PushOutcome(Result.APPLIED, version)

    def _confirm(self) -> PushOutcome | None:
        record = self._store.record
        if record.slots.trial is None:
            return None
        self._store.commit(msgspec.structs.replace(record, slots=trial.confirm(record.slots)))
        return PushOutcome(Result.CONFIRMED, record.slots.trial.version)

    def _revert(self, detail: str) -> PushOutcome | None:
        record = self._store.record
        if record.slots.trial is None:
            return None
        slots = trial.revert(record.slots)
        self._store.commit(msgspec.structs.replace(record, slots=slots))
        self._state = _State(self._load(slots), time.monotonic())
        return PushOutcome(Result.REVERTED, record.slots.trial.version, Reason.UNHEALTHY, detail)
