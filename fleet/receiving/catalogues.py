"""Finds catalogues by vehicle and digest, and caches parsed catalogues in memory.

Invariant: a vehicle's batch is read only with a catalogue that the same vehicle delivered, and only if the catalogue's
content matches the digest.
"""

from collections import OrderedDict
from typing import Final

import zstandard

from agent.formats.up.catalogue import MAX_CATALOGUE_BYTES, Catalogue, read_catalogue
from agent.formats.up.delta import MalformedError
from fleet.receiving.catalogue_table import CatalogueContent, CatalogueTable

PARSED: Final = 128
PARSED_BYTES: Final = 64 * 1024 * 1024
"""The limits of parsed catalogues in memory: their number, and their estimated size.

A catalogue of 44 kB can take 40 MB in memory, because names and value tables that are written once are there for every
signal.
"""

_LEVEL: Final = 9


class Catalogues:
    """Holds the catalogues of one receiver.  Only one thread may use them at a time."""

    def __init__(self, table: CatalogueTable) -> None:
        self._table = table
        # The keys are digests without vehicles, because vehicles of one model share catalogues.
        self._parsed: OrderedDict[bytes, Catalogue] = OrderedDict()
        self._sizes: dict[bytes, int] = {}
        self._arrived: dict[tuple[str, bytes], CatalogueContent] = {}

    def add_arrived(self, vehicle: str, catalogue: Catalogue) -> None:
        """Add a catalogue that arrived with a batch.

        Later batches of the same group of messages may refer to it before it is stored.
        """
        content = zstandard.ZstdCompressor(level=_LEVEL).compress(catalogue.content)
        self._arrived[vehicle, catalogue.digest] = CatalogueContent(vehicle, catalogue.digest, content)
        self._remember(catalogue)

    def take_arrived(self) -> list[CatalogueContent]:
        """Return the catalogues that were added since the last call.  The caller stores them with their batches."""
        arrived, self._arrived = self._arrived, {}
        return list(arrived.values())

    def find(self, vehicle: str, digest: bytes) -> Catalogue | None:
        """Return the catalogue that `vehicle` delivered under `digest`.

        Return None if the vehicle did not deliver the catalogue, or if the stored copy is gone or damaged.

        Raises: Transient if the disk cannot be read; Permanent if the database is damaged.
        """
        if (vehicle, digest) not in self._arrived and not self._table.has(vehicle, digest):
            return None
        if digest in self._parsed:
            self._parsed.move_to_end(digest)
            return self._parsed[digest]
        content = self._table.content(vehicle, digest)
        if content is None:
            return None
        try:
            plain = zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_CATALOGUE_BYTES)
            catalogue = read_catalogue(plain)
        except (zstandard.ZstdError, MalformedError):
            # The catalogue is damaged on the receiver's disk.  None makes the receiver ask the vehicle for it again.
            return None
        if catalogue.digest != digest:
            return None
        self._remember(catalogue)
        return catalogue

    def _remember(self, catalogue: Catalogue) -> None:
        self._parsed[catalogue.digest] = catalogue
        self._parsed.move_to_end(catalogue.digest)
        self._sizes[catalogue.digest] = _bytes_of(catalogue)
        # The newest catalogue stays even if it is too large, because the batch that brought it needs it now.
        while len(self._parsed) > 1 and (len(self._parsed) > PARSED or sum(self._sizes.values()) > PARSED_BYTES):
            digest, _ = self._parsed.popitem(last=False)
            del self._sizes[digest]


def _bytes_of(catalogue: Catalogue) -> int:
    """Estimate the memory that a parsed catalogue takes."""
    tables = {id(table): table for _, table in catalogue.described}
    texts = sum(100 * len(table) for table in tables.values())
    return len(catalogue.content) + texts + sum(400 + len(signal.name) for signal, _ in catalogue.described)
