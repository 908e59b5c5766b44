"""Bring envelopes into the lake exactly once: judge them, store them durably, append them, and only then acknowledge.

    take_in  judges each envelope: what is refused goes to the quarantine, what is new becomes a commit of the inbox
    land     appends the commit to the lake, finishes it, and returns the acknowledgements that may now be sent

Invariants: an acknowledgement says "stored" only for what the lake holds durably, and a catalogue is kept before the
batch that carried it is acknowledged, be it new or not.  A batch whose catalogue is missing is neither stored nor
refused: the vehicle is asked for the catalogue and sends the batch again.

Both steps may be called again after Transient and continue where they stopped; `recover` does the same after a crash.
Nothing here awaits: the receiver calls this class from one thread at a time.
"""

import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import Permanent, Untrusted
from agent.formats import topics
from agent.formats.up.acks import MAX_SEQS, Ack, Refusal, sign_ack
from agent.formats.up.catalogue import UnknownCatalogue
from agent.formats.up.seal import RecipientPrivateKey, read_header
from fleet.lake.batch_key import BatchKey
from fleet.lake.rows import OpenedBatch
from fleet.lake.tables import SCHEMAS, Lake
from fleet.receiving.catalogues import Catalogues
from fleet.receiving.inbox import Commit, Inbox, SealedBatch
from fleet.receiving.intake import Rejection, Waiting, judge, reopen_batch
from fleet.receiving.quarantine import Quarantine
from fleet.state.registry import Registry

COMMIT_SAMPLES = 1_000_000
"""A commit is closed when it has this many: about 100 bytes of memory each on the way into the lake."""

SAID = 1_000
"""Causes of silence that are remembered as logged."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """An MQTT message as it came."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Totals:
    """What a receiver did since it started.

    `unanswered` of the `refused` were refused in silence, so that the vehicle keeps them (see fleet.receiving.intake).
    """

    batches: int = 0
    samples: int = 0
    events: int = 0
    duplicates: int = 0
    refused: int = 0
    unanswered: int = 0
    waiting: int = 0  # for a catalogue; they come again
    commits: int = 0
    recovered: int = 0


@dataclass(slots=True)
class _Answer:
    stored: set[int] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)
    wanted: dict[int, bytes] = field(default_factory=dict)


class Store:
    """What one receiver does with what arrives."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        lake: Lake,
        quarantine: Quarantine,
        registry: Registry,
        private: RecipientPrivateKey,
        acks_key: Ed25519PrivateKey,
    ) -> None:
        self._inbox = inbox
        self._catalogues = Catalogues(inbox)
        self._lake = lake
        self._quarantine = quarantine
        self._registry = registry
        self._private = private
        self._acks_key = acks_key
        self._open: tuple[Commit, list[OpenedBatch]] | None = None
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._said: set[tuple[str, str]] = set()  # topic and reason
        self.totals = Totals()

    def recover(self) -> None:
        """Land what earlier processes took in and did not finish, those of shares that nobody serves included.

        Permanent where the inbox is older than the lake (restored from a backup): its numbers would be given
        twice. Transient where lake or disk refuse: call again.
        """
        self._recover(self._inbox)
        with contextlib.closing(self._inbox.adopt()) as abandoned:  # closed at once: its locks go with it
            for inbox in abandoned:
                self._recover(inbox)

    def take_in(self, messages: Sequence[Message]) -> int:
        """Judge and keep `messages` from the first on, up to COMMIT_SAMPLES; how many of them.  Then call
        `land`.

        Transient where the disk refuses: none of them is taken.
        """
        assert self._open is None, "land what was taken in first"
        opened: dict[BatchKey, OpenedBatch] = {}
        sealed: list[SealedBatch] = []
        waiting: dict[BatchKey, bytes] = {}
        rejections: list[tuple[Message, Rejection]] = []
        self._catalogues.take_arrived()  # of a group that the disk refused: it is judged again
        samples = count = 0
        now_us = time.time_ns() // 1000
        for message in messages:
            count += 1
            verdict = judge(
                message.topic,
                message.payload,
                self._registry.find,
                self._private,
                self._catalogues.find,
                received_at_us=now_us,
            )
            if isinstance(verdict, Rejection):
                rejections.append((message, verdict))
                self._quarantine.keep(
                    message.payload, topic=message.topic, reason=verdict.reason, received_at_us=now_us
                )
                continue
            key = BatchKey(verdict.header.vehicle, verdict.header.epoch, verdict.header.seq)
            if isinstance(verdict, Waiting):
                waiting[key] = verdict.catalogue
                continue
            if verdict.carried is not None:
                self._catalogues.arrived(key.vehicle, verdict.carried)
            opened[key] = verdict
            sealed.append(SealedBatch(key, message.payload, now_us, verdict.catalogue))
            samples += verdict.window.samples
            if samples >= COMMIT_SAMPLES:
                break
        taken = self._inbox.take(sealed, self._catalogues.take_arrived())
        if taken.commit is not None:
            self._open = taken.commit, [opened[batch.key] for batch in taken.commit.batches]
        for key in taken.stored:
            self._answer(key).stored.add(key.seq)
        for key in taken.held:
            _log.warning("batch_held", vehicle=key.vehicle, epoch=key.epoch, seq=key.seq, by="another receiver")
        for key, digest in waiting.items():
            self._note_waiting(key, digest)
        for message, rejection in rejections:
            self._note(message, rejection)
        self.totals.duplicates += len(sealed) - len(taken.commit.batches if taken.commit else ())
        return count

    def land(self) -> list[Message]:
        """Append what was taken in to the lake; the acknowledgements to send.  Transient where the lake
        refuses."""
        if self._open is not None:
            commit, batches = self._open
            self._complete(self._inbox, commit, batches)
            self._open = None
            for batch in commit.batches:
                self._answer(batch.key).stored.add(batch.key.seq)
            self.totals.commits += 1
            self.totals.batches += len(batches)
            self.totals.samples += sum(batch.window.samples for batch in batches)
            self.totals.events += sum(len(batch.window.events) for batch in batches)
        answers, self._answers = self._answers, {}
        return [message for of, answer in answers.items() for message in self._acknowledge(*of, answer)]

    def close(self) -> None:
        """Close the inbox; what was taken in and not landed is landed at the next start."""
        self._inbox.close()

    def _recover(self, inbox: Inbox) -> None:
        landed = self._lake.landed(inbox.app_id)
        if landed > inbox.last_number:
            raise Permanent(
                f"the inbox is older than the lake (commit {inbox.last_number}, the lake has {landed}): "
                "move receiver.db away, and it is rebuilt from the lake"
            )
        for commit in inbox.undone():
            batches = [batch for sealed in commit.batches if (batch := self._reopen(sealed)) is not None]
            self._complete(inbox, commit, batches)
            self.totals.recovered += len(batches)
            _log.info("commit_recovered", by=inbox.app_id, number=commit.number, batches=len(batches))

    def _complete(self, inbox: Inbox, commit: Commit, batches: Sequence[OpenedBatch]) -> None:
        for table in SCHEMAS:
            self._lake.append(table, inbox.app_id, commit.number, batches)
        inbox.finish(commit.number)

    def _reopen(self, sealed: SealedBatch) -> OpenedBatch | None:
        """Open once more what was accepted before the crash; None, and quarantined, where our key is another now."""
        try:
            return reopen_batch(
                sealed.sealed, self._private, self._catalogues.find, received_at_us=sealed.received_at_us
            )
        except (Untrusted, UnknownCatalogue) as error:
            topic = _topic_of(sealed)
            reason = str(error)
            self._quarantine.keep(sealed.sealed, topic=topic, reason=reason, received_at_us=sealed.received_at_us)
            self.totals.refused += 1
            _log.warning("batch_refused", topic=topic, seq=sealed.key.seq, reason=reason)
            return None

    def _note_waiting(self, key: BatchKey, digest: bytes) -> None:
        if self._inbox.is_stored(key):  # it came before the catalogue was lost, and its acknowledgement did not arrive
            self._answer(key).stored.add(key.seq)
            self.totals.duplicates += 1
            return
        self.totals.waiting += 1
        _log.info("batch_waits", vehicle=key.vehicle, seq=key.seq, catalogue=digest.hex())
        self._answer(key).wanted[key.seq] = digest

    def _note(self, message: Message, rejection: Rejection) -> None:
        self.totals.refused += 1
        header = rejection.claimed
        seq = None if header is None else header.seq
        if header is not None and rejection.final:
            _log.warning("batch_refused", topic=message.topic, seq=seq, reason=rejection.reason)
            refusal = Refusal(rejection.reason, hashlib.sha256(message.payload).digest())
            self._answer(BatchKey(header.vehicle, header.epoch, header.seq)).refused[header.seq] = refusal
            return
        self.totals.unanswered += 1
        what = (message.topic, rejection.reason)
        if what not in self._said:  # the vehicle sends again and again: one line for each cause
            if len(self._said) >= SAID:
                self._said.clear()
            self._said.add(what)
            _log.warning("batch_not_answered", topic=message.topic, seq=seq, reason=rejection.reason)

    def _answer(self, key: BatchKey) -> _Answer:
        return self._answers.setdefault((key.vehicle, key.epoch), _Answer())

    def _acknowledge(self, vehicle: str, epoch: str, answer: _Answer) -> list[Message]:
        wanted = {seq: digest for seq, digest in answer.wanted.items() if seq not in answer.stored}
        known = answer.stored | wanted.keys()
        # A damaged copy of a batch that is stored, or waits, must not make the vehicle mourn it.
        refused = {seq: refusal for seq, refusal in answer.refused.items() if seq not in known}
        entries = [*sorted(answer.stored), *sorted(refused), *sorted(wanted)]
        messages = []
        for start in range(0, len(entries), MAX_SEQS):
            part = entries[start : start + MAX_SEQS]
            ack = Ack(
                vehicle,
                epoch,
                tuple(seq for seq in part if seq in answer.stored),
                {seq: refused[seq] for seq in part if seq in refused},
                {
                    digest: tuple(seq for seq in part if wanted.get(seq) == digest)
                    for digest in sorted({wanted[seq] for seq in part if seq in wanted})
                },
            )
            messages.append(Message(topics.ack(vehicle), sign_ack(ack, self._acks_key)))
        return messages


def _topic_of(batch: SealedBatch) -> str:
    """Return the topic on which a batch of the inbox arrived.

    The inbox does not store topics.  The header names them all the same, because a batch is only taken in where lane
    and partition of its topic are those of its header and its vehicle.
    """
    vehicle = batch.key.vehicle
    return topics.up(topics.partition_of(vehicle), vehicle, read_header(batch.sealed).lane)
