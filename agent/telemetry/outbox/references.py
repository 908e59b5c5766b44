"""Decides which catalogue the batches of a campaign may refer to, and which catalogues to offer to the fleet.

Invariants: a batch refers to a catalogue only after the receiver has acknowledged the batch that carried the catalogue.
Until then, each batch describes its signals itself.  A batch also does so if the spool cannot be asked for the
receiver's answer.  A catalogue is offered at most once in each run of the agent.  It is not offered if the spool keeps
too many catalogues already.

This file touches the disk only through the spool's writer.
"""

from collections.abc import Collection, Sequence

import msgspec

from agent.errors import Transient
from agent.formats.up.catalogue import MAX_CATALOGUE_BYTES, Catalogue, catalogue_of
from agent.formats.up.columns import Clock, Described, Window
from agent.formats.up.encode import encode_catalogue
from agent.formats.up.limits import MAX_SIGNALS
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.recovery import CATALOGUES
from agent.telemetry.spool.writer import Writer


class Description(msgspec.Struct, frozen=True):
    """The signals that one revision of a campaign may collect on this vehicle."""

    campaign: str
    revision: str
    signals: Sequence[Described]


class Offer(msgspec.Struct, frozen=True):
    """A catalogue that the receiver has not confirmed yet, and the body of the batch that will carry it."""

    catalogue: Catalogue
    body: bytes


class References:
    """Holds the catalogues of the current campaigns.  Not thread-safe: the outbox serialises the calls."""

    def __init__(self, writer: Writer, *, body_max_bytes: int) -> None:
        self._writer = writer
        self._body_max_bytes = body_max_bytes
        self._in_force: dict[str, Catalogue] = {}
        self._offered: set[bytes] = set()

    def put_in_force(
        self, descriptions: Sequence[Description], *, pending: Collection[bytes], t_us: int, clock: Clock
    ) -> list[Offer]:
        """Make `descriptions` the current campaigns, and return the catalogues to offer to the fleet now.

        `pending` has the digests of the catalogues to which bodies in memory refer.  If this raises Transient, new
        batches refer to no catalogue until a later call succeeds.
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
        """Return an offer of a catalogue that fits into one batch.

        If the campaign has too many signals for one batch, the catalogue lacks the last signals of the list.  A
        batch that contains such a signal describes the signal itself.
        """
        signals = description.signals[:MAX_SIGNALS]
        while True:
            catalogue = catalogue_of(description.campaign, description.revision, signals)
            body = encode_catalogue(catalogue, t_us, clock)
            excess = max(len(body) / self._body_max_bytes, len(catalogue.content) / MAX_CATALOGUE_BYTES)
            if excess <= 1 or not signals:
                return Offer(catalogue, body)
            signals = signals[: int(len(signals) * 0.9 / excess)]
