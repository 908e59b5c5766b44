"""Collects the verdicts on a group of messages, and turns them into signed acknowledgements for the vehicles.  Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.formats import topics
from agent.formats.up.acks import MAX_SEQS, Ack, Refusal, sign_ack
from fleet.lake.batch_key import BatchKey
from fleet.receiving.message import Message


@dataclass(slots=True)
class _Epoch:
    """Holds the verdicts on the batches of one epoch, by sequence number.

    `stored` names batches that are in the lake.  `refused` gives the reason for each batch that will never be stored.
    `wanted` gives, for each batch that waits for a catalogue, the digest of that catalogue.
    """

    stored: set[int] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)
    wanted: dict[int, bytes] = field(default_factory=dict)


class Answers:
    """Keeps the verdicts that were not yet sent to their vehicles."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, str], _Epoch] = {}

    def add_stored(self, key: BatchKey) -> None:
        """Note that the batch is durably in the lake."""
        self._epoch_of(key).stored.add(key.seq)

    def add_refused(self, key: BatchKey, refusal: Refusal) -> None:
        """Note that the batch will never be stored.  `refusal` holds the reason."""
        self._epoch_of(key).refused[key.seq] = refusal

    def add_wanted(self, key: BatchKey, digest: bytes) -> None:
        """Note that the batch waits for the catalogue with this digest."""
        self._epoch_of(key).wanted[key.seq] = digest

    def take_messages(self, acks_key: Ed25519PrivateKey) -> list[Message]:
        """Return all kept verdicts as signed acknowledgements, and keep them no longer."""
        epochs, self._epochs = self._epochs, {}
        return [
            Message(topics.ack(ack.vehicle), sign_ack(ack, acks_key))
            for (vehicle, epoch), noted in epochs.items()
            for ack in _acks(vehicle, epoch, noted)
        ]

    def _epoch_of(self, key: BatchKey) -> _Epoch:
        return self._epochs.setdefault((key.vehicle, key.epoch), _Epoch())


def _acks(vehicle: str, epoch: str, noted: _Epoch) -> Iterator[Ack]:
    wanted = {seq: digest for seq, digest in noted.wanted.items() if seq not in noted.stored}
    # If a batch is stored or waits, a damaged copy of the batch must not make the vehicle discard it.
    refused = {seq: refusal for seq, refusal in noted.refused.items() if seq not in noted.stored | wanted.keys()}
    seqs = [*sorted(noted.stored), *sorted(refused), *sorted(wanted)]
    for start in range(0, len(seqs), MAX_SEQS):
        some = seqs[start : start + MAX_SEQS]
        yield Ack(
            vehicle,
            epoch,
            tuple(seq for seq in some if seq in noted.stored),
            {seq: refused[seq] for seq in some if seq in refused},
            {
                digest: tuple(seq for seq in some if wanted.get(seq) == digest)
                for digest in sorted({wanted[seq] for seq in some if seq in wanted})
            },
        )
