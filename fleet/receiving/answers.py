"""Collects the verdicts on a group of messages, and turns them into signed acknowledgements for the vehicles.  Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.formats import topics
from agent.formats.up.acks import MAX_SEQS, Ack, Refusal, Sealed, sign_ack
from fleet.lake.batch_key import BatchKey
from fleet.receiving.message import Message


@dataclass(slots=True)
class _Epoch:
    """Holds the verdicts on the batches of one epoch.

    `stored` names batches that are in the lake.  `refused` gives the reason for each batch that will never be stored.
    `wanted` gives, for each batch that waits for a catalogue, the digest of that catalogue.  If several batches of one
    number are refused, only one is kept; the vehicle sends the others again.
    """

    stored: set[Sealed] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)
    wanted: dict[Sealed, bytes] = field(default_factory=dict)


class Answers:
    """Keeps the verdicts that were not yet sent to their vehicles."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, str], _Epoch] = {}

    def add_stored(self, key: BatchKey) -> None:
        """Note that the batch is durably in the lake."""
        self._epoch_of(key).stored.add(key.sealed)

    def add_refused(self, key: BatchKey, reason: str) -> None:
        """Note that the batch will never be stored, and why."""
        self._epoch_of(key).refused[key.seq] = Refusal(reason, key.digest)

    def add_wanted(self, key: BatchKey, digest: bytes) -> None:
        """Note that the batch waits for the catalogue with this digest."""
        self._epoch_of(key).wanted[key.sealed] = digest

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
    wanted = {sealed: digest for sealed, digest in noted.wanted.items() if sealed not in noted.stored}
    refused = {Sealed(seq, refusal.digest): refusal for seq, refusal in noted.refused.items()}
    # A batch that a receiver stored or that waits may be refused as well, for example if its vehicle was revoked since.
    refused = {sealed: refused[sealed] for sealed in refused.keys() - noted.stored - wanted.keys()}
    answered = [*sorted(noted.stored), *sorted(refused), *sorted(wanted)]
    for start in range(0, len(answered), MAX_SEQS):
        some = answered[start : start + MAX_SEQS]
        yield Ack(
            vehicle,
            epoch,
            tuple(sealed for sealed in some if sealed in noted.stored),
            {sealed.seq: refused[sealed] for sealed in some if sealed in refused},
            {
                digest: tuple(sealed for sealed in some if wanted.get(sealed) == digest)
                for digest in sorted({wanted[sealed] for sealed in some if sealed in wanted})
            },
        )
