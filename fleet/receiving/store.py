"""Brings batches into the lake exactly once: judges, stores and appends them, and only then acknowledges them.

    take_in  judges each envelope: rejected batches go to the quarantine, new batches become a commit of the inbox
    land     appends the commit to the lake, finishes it, and returns the acknowledgements that may now be sent

Invariants: an acknowledgement says "stored" only for batches that are durably in the lake.  A catalogue is stored
before the batch that carried it is acknowledged, even if the batch was known before.  A batch whose catalogue is
missing is neither stored nor rejected: the vehicle is asked for the catalogue, and sends the batch again.

If a method raises Transient, call it again.  After a crash, `recover` completes the unfinished commits.
All methods block.  The receiver calls them in threads, but only one at a time.
"""

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.formats.up.seal import Header, digest_of
from fleet.lake.batch_key import BatchKey
from fleet.lake.claims import Fenced
from fleet.lake.rows import BatchRows, day_of
from fleet.lake.tables import Lake
from fleet.receiving.agent_reports import AgentReports
from fleet.receiving.answers import Answers
from fleet.receiving.catalogues import Catalogues
from fleet.receiving.costs import Costs
from fleet.receiving.days import Days
from fleet.receiving.forks import Forks
from fleet.receiving.inbox import Inbox
from fleet.receiving.intake import Accepted, FindKey, Rejection, Waiting, judge
from fleet.receiving.landing import Landing
from fleet.receiving.message import Message
from fleet.receiving.pending_batches import Commit, SealedBatch
from fleet.receiving.quarantine import Quarantine
from fleet.receiving.rejections import Rejections
from fleet.receiving.totals import Totals
from fleet.state.registry import Registry

COMMIT_SAMPLES: Final = 500_000
"""A commit is closed when it has this many samples.  Each sample takes some 100 bytes of memory meanwhile."""

JUDGE_S: Final = 1.0
"""Judging stops after this time, so that costly batches do not delay the acknowledgement of those before them."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Judged:
    """Holds the verdicts on a group of messages.

    `messages` counts the messages that were judged.  The flag of each rejection says whether the quarantine has the
    batch.
    """

    messages: int = 0
    accepted: dict[BatchKey, BatchRows] = field(default_factory=dict)
    sealed: list[SealedBatch] = field(default_factory=list)
    waiting: dict[BatchKey, bytes] = field(default_factory=dict)
    rejections: list[tuple[Message, Rejection, bool]] = field(default_factory=list)


class Store:
    """Carries the messages of one receiver from the broker into the lake.

    Call `recover` first.  Then call `take_in` and `land` in turn.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        lake: Lake,
        quarantine: Quarantine,
        registry: Registry,
        find_key: FindKey,
        acks_key: Ed25519PrivateKey,
    ) -> None:
        self.totals = Totals()
        self.costs = Costs()
        self.reports = AgentReports()
        self._days = Days()
        self._forks = Forks()
        self._inbox = inbox
        self._catalogues = Catalogues(inbox.catalogues)
        self._lake = lake
        self._rejections = Rejections(quarantine)
        self._registry = registry
        self._find_key = find_key
        self._landing = Landing(lake, find_key, self._catalogues, self._rejections, self.totals, reports=self.reports)
        self._acks_key = acks_key
        self._to_land: tuple[Commit, dict[BatchKey, BatchRows]] | None = None
        self._answers = Answers()

    def recover(self) -> None:
        """Append the unfinished commits of earlier processes to the lake.

        Commits of shares that no receiver serves now are appended as well, unless a receiver with another inbox has
        claimed their partitions meanwhile.

        Raises: Permanent if a receiver with another inbox has claimed the partitions of this receiver; Transient if the
        lake or the disk refuses.  After Transient, call `recover` again.
        """
        self._landing.recover(self._inbox)
        # The generator must be closed at once, because closing releases the lock of the last share.
        with contextlib.closing(self._inbox.adopt()) as abandoned:
            for inbox in abandoned:
                try:
                    self._landing.recover(inbox)
                except Fenced as error:
                    _log.warning("commits_left", share=inbox.share, reason=str(error))

    def take_in(self, messages: Sequence[Message]) -> int:
        """Judge `messages` in order, store the new batches in the inbox, and return how many messages were judged.

        Judging stops after the message with which the group reaches COMMIT_SAMPLES samples or JUDGE_S seconds.  The
        caller then calls `land`, and passes the messages that were not judged to the next `take_in`.

        Raises: Transient if the disk refuses.  No batch is then stored, and the caller passes the same messages again.
        """
        assert self._to_land is None, "call `land` before the next `take_in`"
        # If the disk refused the previous call, the catalogues of its group are still here.  They are dropped, because
        # the same group is judged again now.
        self._catalogues.take_arrived()
        judged = self._judge(messages)
        in_lake = self._look_up(self._inbox.unsure(judged.sealed), judged.accepted)
        taken = self._inbox.take(judged.sealed, self._catalogues.take_arrived(), in_lake=in_lake)
        if taken.commit is not None:
            rows = {batch.key: judged.accepted[batch.key] for batch in taken.commit.batches}
            self._to_land = taken.commit, rows
        for key in taken.stored:
            self._answers.add_stored(key)
        for key in taken.forking:
            self._forks.note(key)
        for key in taken.held:
            _log.warning("batch_held", vehicle=key.vehicle, epoch=key.epoch, seq=key.seq, by="another receiver")
        for key, digest in judged.waiting.items():
            self._note_waiting(key, digest)
        for message, rejection, kept in judged.rejections:
            self._note_rejection(message, rejection, kept)
        self.totals.duplicates += len(judged.sealed) - len(taken.commit.batches if taken.commit else ())
        return judged.messages

    def land(self) -> list[Message]:
        """Append to the lake what the latest `take_in` stored in the inbox, and return the acknowledgements to send.

        Raises: Transient if the lake or the disk refuses.  Then call `land` again.
        """
        if self._to_land is not None:
            commit, batches = self._to_land
            started_s = time.monotonic()
            self._landing.complete(self._inbox, commit, batches)
            self.costs.charge_commit(commit, list(batches.values()), time.monotonic() - started_s)
            self._to_land = None
            for batch in commit.batches:
                self._answers.add_stored(batch.key)
            self.totals.commits += 1
            self.totals.batches += len(batches)
            self.totals.samples += sum(rows["samples"].num_rows for rows in batches.values())
            self.totals.events += sum(rows["events"].num_rows for rows in batches.values())
        return self._answers.take_messages(self._acks_key)

    def close(self) -> None:
        """Close the inbox.  Batches that are not yet in the lake get there after the next start."""
        self._inbox.close()

    def _judge(self, messages: Sequence[Message]) -> _Judged:
        judged = _Judged()
        samples = 0
        started_s = time.monotonic()
        now_us = time.time_ns() // 1000
        for message in messages:
            if judged.messages and (samples >= COMMIT_SAMPLES or time.monotonic() - started_s > JUDGE_S):
                break
            judged.messages += 1
            with self.costs.charging(message.vehicle):
                verdict = judge(
                    message.topic,
                    message.payload,
                    self._registry.find,
                    self._find_key,
                    self._catalogues.find,
                    received_at_us=now_us,
                )
                if isinstance(verdict, Accepted):
                    verdict = self._unless_too_many_days(verdict)
                if isinstance(verdict, Rejection):
                    kept = self._rejections.keep(message, verdict.reason, now_us)
                    judged.rejections.append((message, verdict, kept))
                    continue
            key = _key_of(verdict.header, message.payload)
            if isinstance(verdict, Waiting):
                judged.waiting[key] = verdict.catalogue
                continue
            if verdict.carried is not None:
                self._catalogues.add_arrived(key.vehicle, verdict.carried)
            judged.accepted[key] = verdict.rows
            judged.sealed.append(SealedBatch(key, message.payload, now_us, verdict.catalogue))
            samples += verdict.rows["samples"].num_rows
        return judged

    def _unless_too_many_days(self, batch: Accepted) -> Accepted | Rejection:
        if self._days.allow(batch.header.vehicle, day_of(batch.rows).toordinal(), time.monotonic()):
            return batch
        return Rejection(
            "The vehicle has sent batches of too many different days lately. Check its clock. "
            "The vehicle keeps the batch and sends it again later.",
            batch.header,
        )

    def _look_up(self, keys: Collection[BatchKey], accepted: Mapping[BatchKey, BatchRows]) -> set[BatchKey]:
        """Return the batches of `keys` that the lake has as a whole, and charge their vehicles for the work."""
        if not keys:
            return set()
        started_s = time.monotonic()
        # Another table may lack the rows of a batch that the table `batches` has (fleet.receiving.reconcile).
        found = {
            key
            for key in self._lake.stored({key: day_of(accepted[key]) for key in keys})
            if not self._inbox.record.is_half_landed("batches", key.digest)
        }
        now_s = time.monotonic()
        for key in keys:
            self.costs.spend(key.vehicle, (now_s - started_s) / len(keys), now_s)
        return found

    def _note_waiting(self, key: BatchKey, digest: bytes) -> None:
        # The batch may have been stored before its catalogue was lost, and its acknowledgement may have been lost, too.
        if self._inbox.is_stored(key):
            self._answers.add_stored(key)
            self.totals.duplicates += 1
            return
        self.totals.waiting += 1
        _log.info("batch_waits", vehicle=key.vehicle, seq=key.seq, catalogue=digest.hex())
        self._answers.add_wanted(key, digest)

    def _note_rejection(self, message: Message, rejection: Rejection, kept: bool) -> None:
        self.totals.refused += 1
        header = rejection.claimed
        # The vehicle deletes a batch that is refused, so the batch must be in the quarantine by then.
        if header is None or not rejection.final or not kept:
            self.totals.unanswered += 1
            self._rejections.log_unanswered(message, rejection)
            return
        self._rejections.log_refused(message, rejection)
        self._answers.add_refused(_key_of(header, message.payload), rejection.reason)


def _key_of(header: Header, payload: bytes) -> BatchKey:
    return BatchKey(header.vehicle, header.epoch, header.seq, digest_of(payload))
