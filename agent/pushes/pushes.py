"""Pushes: the one door through which the fleet changes what this vehicle does.

Order of an offer: examined in the verifier process, stored, put in force by one durable record, visible.  Invariants:
a refused bundle changes nothing on the disk; trusted metadata may advance although its documents are unusable, and
what is applied is tracked apart; offers are taken one after the other, and the record is written by one thread at a
time, also where the one who asked is cancelled.
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
"""The earliest time that can be: the clock of a car that has none may show 1970, where nothing would be expired."""

Examiner = Callable[[Question], Awaitable[Verdict]]
"""The verifier process, or what a test puts in its place."""

log = structlog.get_logger()


@dataclass(slots=True)
class _State:
    """What changes while the agent runs."""

    release: Release | None
    applied_at_s: float  # monotonic
    from_scratch: bool = False


class Pushes:
    """Owns the push store.  Make it with `open`; methods are for one event loop."""

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
        self._attempting = False  # the trial's attempt that is counted is this one
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
        """Open the push store in `folder`, created where missing; nothing is counted before `begin`.

        Blocking.  `trusted_root` is the content of the vehicle's root.json.  Raises Permanent (folder unusable).
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
        """The release in force (on trial or proved), or None: the vehicle's own configuration applies."""
        return self._state.release

    def sync_request(self) -> bytes:
        """What to send to `hu/v1/sync/<vehicle>` on every connect and every nudge."""
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
        """Take a bundle from `hu/v1/push/<vehicle>`, whoever sent it.  After APPLIED, apply `current()`.

        Raises Transient where the machine failed (disk full, no process): what is in force stays, ask again later; and
        Permanent where the vehicle's own root.json is unusable.
        """
        async with self._one_at_a_time:
            if len(payload) > BUNDLE_BYTES:
                return PushOutcome(Result.REFUSED, 0, Reason.OVERSIZED, f"bundle of {len(payload)} bytes")
            if payload == self._nothing_new():
                return PushOutcome(Result.UNCHANGED, self._store.record.floor.targets)
            verdict = await self._examine_bundle(self._question(payload))
            return await whole(asyncio.to_thread(self._settle, verdict))

    async def begin(self) -> PushOutcome | None:
        """Count an attempt of a running trial; apply `current()` after it.  An outcome: the trial ended instead.

        Raises Transient (disk full): the attempt is not counted, and the release is not to be applied.
        """
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._begin))

    async def give_back(self) -> None:
        """The agent is about to stop because it was told to: its attempt of a trial does not count."""
        async with self._one_at_a_time:
            await whole(asyncio.to_thread(self._give_back))

    async def poll_trial(self, *, trial_s: float, healthy: bool) -> PushOutcome | None:
        """Confirm or end a trial where it is time to; None: nothing to do.  Call it every few seconds."""
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
        """The release on trial did well; None where there is none."""
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._confirm))

    async def fail_trial(self, detail: str) -> PushOutcome | None:
        """The release on trial did harm: back to the last known good.  Apply `current()`; None where there is none."""
        async with self._one_at_a_time:
            return await whole(asyncio.to_thread(self._revert, detail))

    def _begin(self) -> PushOutcome | None:
        before = self._store.record.slots
        after = trial.restart(before)
        release = self._load(after)
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
        """The very bytes of an answer to who is up to date: the timestamp we hold, alone."""
        held = self._store.record.metadata.get("timestamp.json")
        return None if held is None else build_bundle({TIMESTAMP: held})

    def _question(self, payload: bytes) -> Question:
        record = self._store.record
        # A release whose file was damaged is asked for again although its version was applied before.
        settled = (record.slots.refused,) if self._state.release is None else record.slots.settled
        return Question(
            bundle=payload,
            trusted_root=self._trusted_root,
            metadata=record.metadata,
            contents=() if self._state.release is None else tuple(self._state.release.documents.values()),
            floor=record.floor,
            settled=settled,
            now_s=max(int(self._now_s()), record.time_s, BUILT_AT_S),
            vehicle=self._vehicle,
        )

    def _settle(self, verdict: Verdict) -> PushOutcome:
        if verdict.reason is not None and not verdict.metadata:
            # Of a bundle that lacks something, the next one shall lack nothing.
            self._state.from_scratch = verdict.reason is Reason.TRUNCATED
            return PushOutcome(Result.REFUSED, 0, verdict.reason, verdict.detail)
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
