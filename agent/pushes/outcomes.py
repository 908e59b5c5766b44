"""Record how trials end, each together with its receipt, so that a crash in between loses no receipt."""

from typing import Final

import msgspec

from agent.errors import Transient
from agent.pushes import trial
from agent.pushes.health import Health
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.pushes.record import Record
from agent.pushes.release import Reason, Verdict
from agent.pushes.store import Store

MOST_RECEIPTS: Final = 20
"""The number of receipts that wait in the record.  More wait only if the disk refuses events, but not the record."""


def outcome_of(verdict: Verdict) -> PushOutcome:
    """Return the outcome of a bundle whose metadata is trusted."""
    if verdict.reason is not None:
        return PushOutcome(Result.REFUSED, verdict.versions.targets, verdict.reason, verdict.detail)
    if verdict.release is not None:
        return PushOutcome(Result.APPLIED, verdict.versions.targets)
    return PushOutcome(Result.FETCHING if verdict.wanted else Result.UNCHANGED, verdict.versions.targets)


def with_receipt(record: Record, outcome: PushOutcome | None) -> Record:
    """Return `record` with the receipt of `outcome`, which waits until it is stored as an event."""
    if outcome is None or receipt(outcome, 0) is None:
        return record
    return msgspec.structs.replace(record, receipts=(*record.receipts, outcome)[-MOST_RECEIPTS:])


def receipt_stored(store: Store, outcome: PushOutcome) -> None:
    """Forget the receipt of `outcome`, because its event is durable.  Blocking."""
    left = tuple(waiting for waiting in store.record.receipts if waiting != outcome)
    if left != store.record.receipts:
        # If the disk refuses now, the next start sends the receipt once more.
        try:
            store.commit(msgspec.structs.replace(store.record, receipts=left))
        except Transient:
            return


def confirm(store: Store, health: Health) -> PushOutcome | None:
    """Confirm the release on trial, or return None if there is none.  Blocking.  Raises: Transient."""
    slots = store.record.slots
    if slots.trial is None:
        return None
    figures = dict(health.figures)
    if health.missing:
        figures["unproven"] = ",".join(health.missing)
    outcome = PushOutcome(Result.CONFIRMED, slots.trial.version, figures=figures)
    _end(store, trial.confirm(slots), outcome)
    return outcome


def revert(store: Store, health: Health) -> PushOutcome | None:
    """Take back the release on trial, or return None if there is none.  Blocking.  Raises: Transient."""
    slots = store.record.slots
    if slots.trial is None:
        return None
    figures = dict(health.figures)
    if health.breach is None:
        reason = Reason.UNPROVEN
        detail = (
            f"the trial ended after {trial.EVIDENCE_S / 3600:.0f} h without the evidence that it needs "
            f"({', '.join(health.missing)}); publish the release again when the vehicle is online"
        )
    else:
        reason, detail = Reason.UNHEALTHY, health.breach.detail
        figures["bound"] = health.breach.bound
    outcome = PushOutcome(Result.REVERTED, slots.trial.version, reason, detail, figures)
    _end(store, trial.revert(slots), outcome)
    return outcome


def changed_documents(store: Store) -> set[str]:
    """Return the paths of documents in which the release on trial differs from the last known good one.  Blocking."""
    slots = store.record.slots
    if slots.trial is None:
        return set()
    new, old = (None if ref is None else store.release(ref) for ref in (slots.trial, slots.current))
    now, before = ({} if release is None else release.documents for release in (new, old))
    return {path for path in now.keys() | before.keys() if now.get(path) != before.get(path)}


def _end(store: Store, slots: trial.Slots, outcome: PushOutcome) -> None:
    record = msgspec.structs.replace(store.record, slots=slots, before=None)
    store.commit(with_receipt(record, outcome))
