"""Gives the uplink the batches to send, and records what became of them.

The uplink is the only reader of the spool.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal, Sealed
from agent.formats.up.columns import Clock
from agent.formats.up.losses import Reason
from agent.telemetry.losses import MAX_DETAIL_CHARS
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.batches import Keys
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.ledger import ACKNOWLEDGED
from agent.telemetry.spool.room import Room
from agent.telemetry.spool.transactions import Transactions

FRESH_S: Final = 300.0  # older batches are backlog; outages in tunnels are shorter, outages in garages longer
FRESH_BATCHES: Final = 256  # bounds the cost of a query for fresh batches; twice what ten campaigns make in FRESH_S
UNSWEPT: Final = 20_000  # acknowledged batches whose files may stay; their names take 4 MB of memory


class Acknowledged(NamedTuple):
    """Says what an acknowledgement did.

    `removed` has the numbers of the batches that it removed.  `others` has the numbers under which the spool has only
    batches with other digests.  These batches stay.
    """

    removed: list[int]
    others: list[int]


class Reader:
    """The methods of the spool that the uplink uses.  Methods block, and any thread may call them."""

    def __init__(
        self,
        transactions: Transactions,
        folder: SpoolFolder,
        room: Room,
        *,
        clock: Callable[[], Clock],
    ) -> None:
        self._transactions = transactions
        self._memory = transactions.memory
        self._stopgap = transactions.stopgap
        self._folder = folder
        self._room = room
        self._clock = clock
        self.on_append: Callable[[], None] | None = None
        """A callback that wakes the uplink after each append of batches to send.  It runs in the appending thread."""

    @property
    def is_read(self) -> bool:
        """Return whether an uplink sends from this spool at present."""
        return self.on_append is not None

    def notify(self) -> None:
        """Call `on_append` if it is set."""
        if self.on_append is not None:
            self.on_append()

    # ---- sending

    def pending(self, limit: int, *, exclude: Keys, lanes: Sequence[Lane], fresh: bool | None = None) -> list[Entry]:
        """Return up to `limit` batches to send, in the order of `lanes`.  Batches with an id in `exclude` are left out.

        A batch is fresh if it was stored in this boot, at most FRESH_S seconds ago, and is among the newest
        FRESH_BATCHES.  `fresh` chooses only fresh batches (True), only batches that are not fresh (False), or all
        batches (None).  Within a lane, the most important batches come first; among equally important batches, the
        newest comes first.  Raises Transient.
        """
        found = self._stopgap.pending(limit, exclude=exclude, lanes=lanes) if fresh is not False else []
        try:
            found += self._stored(limit - len(found), exclude, lanes, fresh)
        except Transient:
            # While the disk refuses everything, the batches of the stopgap can be sent all the same.
            if not self._stopgap.held[0]:
                raise
        return found

    def _stored(self, limit: int, exclude: Keys, lanes: Sequence[Lane], fresh: bool | None) -> list[Entry]:
        found: list[Entry] = []
        with self._transactions.reading() as index:
            now = index.boots.moment(self._clock())
            age = (FRESH_BATCHES, now.boot, now.boottime_us - round(FRESH_S * 1e6))
            for lane in lanes:
                match fresh:
                    case None:
                        entries: Iterable[Entry] = index.queues.next_to_send(lane, exclude)
                    case True:
                        entries = index.queues.newest(lane, *age, exclude)
                    case False:
                        entries = index.queues.not_newest(lane, *age, exclude)
                for entry in entries:
                    if len(found) == limit:
                        return found
                    # The row of a batch in memory has no size, because the batch takes no space on the disk.
                    held = None if entry.withdrawn is None else self._memory.get(entry.key)
                    found.append(held or entry)
        return found

    def read(self, entry: Entry) -> bytes | None:
        """Return the sealed bytes of a batch, or None if the batch is no longer stored or is damaged.

        If the batch is damaged, its loss is recorded.  The call waits for a running transaction only if the file is
        missing or damaged.  Raises Transient.
        """
        content = self._stopgap.content(entry.key) or self._content(entry)
        if hashlib.sha256(content).digest() == entry.digest:
            return content
        with self._transactions.turn:
            with self._transactions.reading() as index:
                current = index.rows.find(*entry.key)
            if current is None:
                return None
            content = self._content(current)
            if hashlib.sha256(content).digest() == current.digest:
                return content
            self._room.lose([(current, current.withdrawn or Reason.CORRUPT, "")], keep=current.withdrawn is None)
            return None

    def _content(self, entry: Entry) -> bytes:
        """Return the content of the batch, or empty bytes if neither memory nor the disk has it."""
        content = None if entry.withdrawn is None else self._memory.content(entry.key)
        if content is not None:
            return content
        try:
            return self._folder.read(self._folder.path(entry.name))
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self._folder.refuses(error) from error

    def catalogue(self, digest: bytes) -> bytes | None:
        """Return the sealed batch that carries the catalogue `digest`.

        Return None if the catalogue is not kept or the receiver has refused it.  If the kept copy is missing or
        damaged, the catalogue is dropped, and None is returned.  Raises Transient.
        """
        with self._transactions.turn:
            with self._transactions.reading() as index:
                carrier = index.catalogues.all().get(digest)
            if carrier is None or carrier.verdict is Verdict.REFUSED:
                return None
            path = self._folder.carrier_path(digest, carrier.epoch, carrier.seq)
            try:
                content = self._folder.read(path)
            except FileNotFoundError:
                content = b""
            except OSError as error:
                raise self._folder.refuses(error) from error
            if hashlib.sha256(content).digest() == carrier.checksum:
                return content
            with self._transactions.writing() as index:
                index.catalogues.drop(digest)
            self._folder.quarantine(path, self._clock().wall_us)
            return None

    # ---- answers

    def acknowledge(self, epoch: str, stored: Collection[Sealed], *, end_to_end: bool = True) -> Acknowledged:
        """Remove the rows of the batches that arrived.

        A batch is removed only if `stored` names its digest.  After an older disk was put back, or while two head units
        have one identity, the receiver also stores other batches under the numbers of this spool.

        `end_to_end` is true if the receiver answered, and false if only the broker did.  An answer of the receiver also
        confirms the catalogues that the batches carried.  The files of the batches stay until `sweep` is called, space
        is needed, or there are more than UNSWEPT such files.  If this raises Transient, repeat the call.
        """
        named = frozenset(stored)
        if epoch == self._stopgap.epoch:
            removed_here, others_here = self._stopgap.acknowledge(named)
            if len(removed_here) == len(named):
                return Acknowledged(removed_here, others_here)
        else:
            removed_here, others_here = [], []
        with self._transactions.turn:
            with self._transactions.writing() as index:
                if end_to_end:
                    index.catalogues.judge(epoch, named, Verdict.CONFIRMED)
                found = index.rows.sendable(epoch, {seq for seq, _ in named})
                gone = [entry for entry in found if entry.sealed in named]
                rows = [entry.row for entry in gone]
                index.ledger.settle_reported(rows)
                index.rows.remove(*rows)
                index.ledger.count(ACKNOWLEDGED, batches=len(gone), samples=sum(entry.samples for entry in gone))
                self._transactions.removing = gone
            for entry in gone:
                self._memory.drop(entry.key)
            self._folder.sweeper.doom((entry.name, entry.size_bytes) for entry in gone if entry.withdrawn is None)
            self._transactions.removing = []
        if self._folder.sweeper.doomed[0] > UNSWEPT:
            self.sweep()
        removed = {entry.seq for entry in gone}
        others = {entry.seq for entry in found} - removed
        return Acknowledged(sorted({*removed, *removed_here}), sorted({*others, *others_here}))

    def sweep(self) -> None:
        """Remove the files of acknowledged batches.  No other call waits for this one unless space is short."""
        self._folder.sweeper.sweep()

    @property
    def unswept(self) -> int:
        """Return how many acknowledged batches still have their file."""
        return self._folder.sweeper.doomed[0]

    def refuse(self, epoch: str, refusals: Mapping[int, Refusal]) -> list[int]:
        """Discard batches that the receiver will never accept, record their loss, and return their sequence numbers.

        A batch is discarded only if the refusal names the digest of the stored bytes.  An attacker may have sent other
        bytes under the id of the batch.  The refusal of the attacker's bytes names another digest, so the batch stays.
        Raises Transient.
        """
        if epoch == self._stopgap.epoch and (gone := self._stopgap.refuse(refusals)):
            return gone
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.rows.sendable(epoch, refusals)
                carriers = [
                    carrier.sealed
                    for carrier in index.catalogues.all().values()
                    if carrier.epoch == epoch
                    and carrier.seq in refusals
                    and refusals[carrier.seq].digest == carrier.sealed.digest
                ]
            if carriers:
                with self._transactions.writing() as index:
                    index.catalogues.judge(epoch, carriers, Verdict.REFUSED)
            refused = [
                (entry, Reason.REFUSED_BY_RECEIVER, refusals[entry.seq].reason[:MAX_DETAIL_CHARS])
                for entry in found
                if entry.sealed.digest == refusals[entry.seq].digest
            ]
            self._room.lose(refused)
            return [entry.seq for entry, _, _ in refused]

    def give_up_unreadable(self, epoch: str, seqs: Iterable[int], digest: bytes) -> int:
        """Discard batches whose catalogue is lost, record their loss, and return how many were discarded.

        Call this if the batches `seqs` need the catalogue `digest`, and neither the receiver nor this spool has it.
        Raises Transient.
        """
        seqs, detail = list(seqs), f"catalogue {digest.hex()} is lost"
        given_up = self._stopgap.lose(epoch, dict.fromkeys(seqs, (Reason.CORRUPT, detail)))
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.rows.sendable(epoch, seqs)
            self._room.lose([(entry, Reason.CORRUPT, detail) for entry in found])
            return len(found) + len(given_up)
