"""Encodes windows as bodies of batches, each within the size limit of a batch.  This file is pure.

Invariant: the bodies of one window together hold exactly the samples and events of the window.  A large window is cut
into fragments, and each fragment says how many fragments the window has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.catalogue import Catalogue
from agent.formats.up.columns import Clock, Window
from agent.formats.up.encode import encode_fragments
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Fragment

EVENTS_PRIORITY: Final = 0


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded body, with the fields that the spool stores beside it.

    `fragment` is the place of the body in its window.  A checkpoint has its batch id in `checkpoint`.  Every other body
    has None there, and gets its batch id when it is sealed.  The remaining fields mean the same as in SealedBatch.
    """

    lane: Lane
    priority: int
    content: bytes = field(repr=False)
    campaign: str
    samples: int
    first_t_us: int
    last_t_us: int
    carries: bytes | None = None
    refers: bytes | None = None
    fragment: Fragment | None = None
    checkpoint: BatchId | None = None
    reports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """Bodies that are stored together or not at all, and the resume points that are stored with them.

    The first `checkpoints` checkpoints of the window are stored, and have `checkpointed_samples` of its samples.  These
    samples survive if the parcel is lost.  `checkpoints` is None if no checkpoint of the window was ever made.
    """

    bodies: tuple[Body, ...]
    resume_points: Mapping[str, int] = field(default_factory=dict)
    checkpoints: int | None = None
    checkpointed_samples: int = 0

    @property
    def size_bytes(self) -> int:
        """Return the size of all bodies together."""
        return sum(len(body.content) for body in self.bodies)

    @property
    def samples(self) -> int:
        """Return the number of samples in all bodies."""
        return sum(body.samples for body in self.bodies)

    @property
    def window(self) -> str | None:
        """Return the id of the window that the parcel holds, or None if the parcel holds events or a catalogue."""
        fragment = self.bodies[0].fragment
        return None if fragment is None else fragment.window

    def lost(self, reason: Reason) -> Loss:
        """Return the record of losing this parcel.  Samples that are also in checkpoints do not count as lost."""
        first, last = self.bodies[0], self.bodies[-1]
        return Loss(
            reason,
            lane=first.lane,
            campaign=first.campaign,
            samples=self.samples - self.checkpointed_samples,
            first_t_us=first.first_t_us,
            last_t_us=last.last_t_us,
        )


class Packer(msgspec.Struct, frozen=True):
    """Encodes windows into bodies of at most `body_max_bytes`."""

    body_max_bytes: int

    def pack_window(
        self, window: Window, priority: int, window_id: str, catalogue: Catalogue | None
    ) -> tuple[Body, ...]:
        """Return the fragments of a closed window."""
        encoded = self._encode(window, catalogue)
        return tuple(
            replace(
                _body(Lane.LIVE, priority, cut, content, catalogue),
                fragment=Fragment(window_id, number, len(encoded)),
            )
            for number, (cut, content) in enumerate(encoded, 1)
        )

    def pack_checkpoint(
        self, window: Window, priority: int, first: BatchId, catalogue: Catalogue | None
    ) -> tuple[Body, ...]:
        """Encode samples of an open window as checkpoints, with ids that count up from `first`.

        `window` holds only the samples that no earlier checkpoint has.  If there are many samples, they are divided
        among several checkpoints.
        """
        return tuple(
            replace(
                _body(Lane.LIVE, priority, cut, content, catalogue),
                checkpoint=BatchId(first.epoch, first.seq + number),
            )
            for number, (cut, content) in enumerate(self._encode(window, catalogue))
        )

    def pack_events(self, window: Window, reports: Sequence[int]) -> Parcel | None:
        """Return a parcel with the events of `window`, which report the loss records with the ids `reports`.

        If several events do not fit into one body, return None, so that the caller divides the events.
        """
        encoded = self._encode(window, None)
        if len(encoded) > 1 and len(window.events) > 1:
            return None
        first, *others = [_body(Lane.EVENTS, EVENTS_PRIORITY, cut, content, None) for cut, content in encoded]
        return Parcel((replace(first, reports=tuple(reports)), *others))

    def pack_catalogue(self, catalogue: Catalogue, content: bytes, clock: Clock) -> Parcel:
        """Return a parcel that carries `catalogue`, encoded as `content`."""
        body = Body(
            Lane.EVENTS,
            EVENTS_PRIORITY,
            content,
            catalogue.campaign,
            0,
            clock.wall_us,
            clock.wall_us + 1,
            carries=catalogue.digest,
        )
        return Parcel((body,))

    def _encode(self, window: Window, catalogue: Catalogue | None) -> list[tuple[Window, bytes]]:
        return list(encode_fragments(window, self.body_max_bytes, catalogue))


def _body(lane: Lane, priority: int, window: Window, content: bytes, catalogue: Catalogue | None) -> Body:
    return Body(
        lane,
        priority,
        content,
        window.campaign,
        window.samples,
        window.start_us,
        window.end_us,
        refers=None if catalogue is None else catalogue.digest,
    )
