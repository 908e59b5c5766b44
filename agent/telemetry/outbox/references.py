"""Which catalogue a campaign's batches may refer to, and which the fleet must get first.  Touches the world.

Invariants: a batch refers to a catalogue only after the receiver itself has acknowledged the batch that carried it;
where that is not known for certain (nothing heard yet, refused, the disk does not answer, too many kept) the batch
describes its signals itself.  A catalogue is offered at most once in each run of the agent.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.errors import Transient
from agent.formats.up.catalogue import MAX_CATALOGUE_BYTES, Catalogue, catalogue_of
from agent.formats.up.columns import Clock, Described, Window
from agent.formats.up.descriptions import MAX_SIGNALS
from agent.formats.up.encode import encode_catalogue
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.recovery import CATALOGUES
from agent.telemetry.spool.writer import Writer


@dataclass(frozen=True, slots=True)
class Description:
    """All that one revision of a campaign may collect on this vehicle."""

    campaign: str
    revision: str
    signals: Sequence[Described]


@dataclass(frozen=True, slots=True)
class Offer:
    """A catalogue that the receiver has not confirmed, as the body of a batch."""

    catalogue: Catalogue
    body: bytes


class References:
    """Catalogues of the campaigns in force.  Not thread-safe: the outbox serialises the calls."""

    def __init__(self, writer: Writer, *, body_max_bytes: int) -> None:
        self._writer = writer
        self._body_max_bytes = body_max_bytes
        self._in_force: dict[str, Catalogue] = {}
        self._offered: set[bytes] = set()

    def put_in_force(
        self, descriptions: Sequence[Description], *, pending: Collection[bytes], t_us: int, clock: Clock
    ) -> list[Offer]:
        """Take over the campaigns that collect from now on; return what must be offered to the fleet for them.

        `pending`: digests that batches outside the spool refer to.  Raises Transient: then no batch refers to anything.
        """
        self._in_force = {}
        made = [self._fitting(description, t_us, clock) for description in descriptions if description.signals]
        digests = {offer.catalogue.digest for offer in made}
        self._writer.keep_catalogues(digests | set(pending))
        kept = self._writer.catalogues()
        room = CATALOGUES - len(kept)
        self._in_force = {offer.catalogue.campaign: offer.catalogue for offer in made}
        offers = []
        for offer in made:
            digest = offer.catalogue.digest
            if kept.get(digest) is Verdict.CONFIRMED or digest in self._offered:
                continue
            if digest in kept or room > 0:
                room -= digest not in kept
                self._offered.add(digest)
                offers.append(offer)
        return offers

    def of(self, window: Window) -> Catalogue | None:
        """Return the catalogue that a batch of `window` may refer to, or None."""
        catalogue = self._in_force.get(window.campaign)
        if catalogue is None or catalogue.revision != window.revision:
            return None
        try:
            verdict = self._writer.catalogues().get(catalogue.digest)
        except Transient:
            return None
        return catalogue if verdict is Verdict.CONFIRMED else None

    def _fitting(self, description: Description, t_us: int, clock: Clock) -> Offer:
        """Return the catalogue with as many signals as one batch can carry; the others are described in each batch."""
        signals = description.signals[:MAX_SIGNALS]
        while True:
            catalogue = catalogue_of(description.campaign, description.revision, signals)
            body = encode_catalogue(catalogue, t_us, clock)
            excess = max(len(body) / self._body_max_bytes, len(catalogue.content) / MAX_CATALOGUE_BYTES)
            if excess <= 1 or not signals:
                return Offer(catalogue, body)
            signals = signals[: int(len(signals) * 0.9 / excess)]
