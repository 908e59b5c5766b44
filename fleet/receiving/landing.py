"""Appends the commits of the inbox to the lake, including commits that earlier processes left unfinished."""

from collections.abc import Mapping

import structlog

from agent.errors import Untrusted
from agent.formats import topics
from agent.formats.up.catalogue import UnknownCatalogue
from agent.formats.up.seal import read_header
from fleet.lake.batch_key import BatchKey
from fleet.lake.claims import Fenced
from fleet.lake.rows import BatchRows
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import Lake
from fleet.receiving.agent_reports import AgentReports
from fleet.receiving.catalogues import Catalogues
from fleet.receiving.inbox import Inbox
from fleet.receiving.intake import FindKey, reopen_batch
from fleet.receiving.message import Message
from fleet.receiving.pending_batches import Commit, SealedBatch
from fleet.receiving.rejections import Rejections
from fleet.receiving.share import Share
from fleet.receiving.totals import Totals

_log = structlog.get_logger()


class Landing:
    """Appends commits to `lake`.  Batches that cannot be opened again are kept by `rejections`."""

    def __init__(
        self,
        lake: Lake,
        find_key: FindKey,
        catalogues: Catalogues,
        rejections: Rejections,
        totals: Totals,
        *,
        reports: AgentReports,
    ) -> None:
        self._lake = lake
        self._find_key = find_key
        self._catalogues = catalogues
        self._rejections = rejections
        self._totals = totals
        self._reports = reports

    def complete(self, inbox: Inbox, commit: Commit, batches: Mapping[BatchKey, BatchRows]) -> None:
        """Append the rows of a commit to each table, and finish the commit.

        Raises: Fenced if a receiver with another inbox has claimed a partition; Transient if the lake or the disk
        refuses.
        """
        claims = inbox.record.claims(Share.of_name(inbox.share))
        while True:
            try:
                tables = [name for name in SCHEMAS if self._append(name, inbox, commit, batches, claims)]
            except Fenced:
                # A receiver of another share of the same inbox may have claimed partitions that both serve.  That
                # receiver claims them and records the claims in one transaction of the inbox.  When the following
                # transaction begins, the other one has ended, so the recorded claims are final.
                with inbox.transaction():
                    newest = inbox.record.claims(Share.of_name(inbox.share))
                if newest == claims or inbox.renamed():
                    raise
                claims = newest
            else:
                inbox.finish(commit.number, tables)
                self._reports.note(batches.values())
                return

    def recover(self, inbox: Inbox) -> None:
        """Append the unfinished commits of `inbox`, and finish them.

        Raises: Fenced or Transient, as `complete` does.
        """
        for commit in inbox.undone():
            batches: dict[BatchKey, BatchRows] = {}
            for sealed in commit.batches:
                rows = self._reopen(sealed)
                if rows is None:
                    landed = self._lake.landed(inbox.app_id)
                    inbox.give_up(sealed.key, [name for name, number in landed.items() if number >= commit.number])
                else:
                    batches[sealed.key] = rows
            self.complete(inbox, commit, batches)
            self._totals.recovered += len(batches)
            _log.info("commit_recovered", by=inbox.app_id, number=commit.number, batches=len(batches))

    def _append(
        self,
        name: str,
        inbox: Inbox,
        commit: Commit,
        batches: Mapping[BatchKey, BatchRows],
        claims: Mapping[int, int],
    ) -> bool:
        rows = [rows for key, rows in batches.items() if not inbox.record.is_half_landed(name, key.digest)]
        return self._lake.append(name, inbox.app_id, commit.number, rows, claims)

    def _reopen(self, batch: SealedBatch) -> BatchRows | None:
        """Open a batch that was accepted before a crash.  If that fails, quarantine the batch and return None.

        Opening can fail if the fleet's key is missing, or if the catalogue is damaged on the disk.  The vehicle still
        has the batch, because it was not acknowledged.
        """
        try:
            return reopen_batch(
                batch.sealed, self._find_key, self._catalogues.find, received_at_us=batch.received_at_us
            )
        except (Untrusted, UnknownCatalogue) as error:
            topic = _topic_of(batch)
            reason = str(error)
            self._rejections.keep(Message(topic, batch.sealed), reason, batch.received_at_us)
            self._totals.refused += 1
            _log.warning("batch_given_up", topic=topic, seq=batch.key.seq, reason=reason)
            return None


def _topic_of(batch: SealedBatch) -> str:
    """Return the topic on which a batch of the inbox arrived.

    The inbox does not store topics, but the topic follows from vehicle and lane: a batch is accepted only if its topic
    matches both.
    """
    vehicle = batch.key.vehicle
    return topics.up(topics.partition_of(vehicle), vehicle, read_header(batch.sealed).lane)
