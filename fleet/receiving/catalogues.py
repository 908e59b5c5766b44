"""Catalogues by vehicle and digest: what the inbox keeps, read once and remembered while it is in use.

Invariant: a vehicle's batch is read only with a catalogue that this vehicle itself delivered, and whose content has
the digest.  At most READ are held parsed: some 100 bytes a signal and text.
"""

from collections import OrderedDict

import zstandard

from agent.formats.up.catalogue import MAX_CATALOGUE_BYTES, Catalogue, read_catalogue
from agent.formats.up.delta import MalformedError
from fleet.receiving.inbox import CatalogueContent, Inbox

READ = 128
_LEVEL = 9


class Catalogues:
    """Those of one receiver.  One thread at a time."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._read: OrderedDict[bytes, Catalogue] = OrderedDict()  # by digest: vehicles of one model share them
        self._arrived: dict[tuple[str, bytes], CatalogueContent] = {}

    def arrived(self, vehicle: str, catalogue: Catalogue) -> None:
        """A catalogue came with the group that is being judged; its later batches may refer to it already."""
        content = zstandard.ZstdCompressor(level=_LEVEL).compress(catalogue.content)
        self._arrived[vehicle, catalogue.digest] = CatalogueContent(vehicle, catalogue.digest, content)
        self._remember(catalogue)

    def take_arrived(self) -> list[CatalogueContent]:
        """What has arrived since the last call, to be kept with the group."""
        arrived, self._arrived = self._arrived, {}
        return list(arrived.values())

    def find(self, vehicle: str, digest: bytes) -> Catalogue | None:
        """Transient where the disk refuses."""
        if (vehicle, digest) not in self._arrived and not self._inbox.has_catalogue(vehicle, digest):
            return None
        if digest in self._read:
            self._read.move_to_end(digest)
            return self._read[digest]
        content = self._inbox.catalogue(vehicle, digest)
        if content is None:
            return None
        try:
            plain = zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_CATALOGUE_BYTES)
            catalogue = read_catalogue(plain)
        except (zstandard.ZstdError, MalformedError):
            return None  # damaged on our disk: the vehicle is asked for it
        if catalogue.digest != digest:
            return None
        self._remember(catalogue)
        return catalogue

    def _remember(self, catalogue: Catalogue) -> None:
        self._read[catalogue.digest] = catalogue
        self._read.move_to_end(catalogue.digest)
        if len(self._read) > READ:
            self._read.popitem(last=False)
