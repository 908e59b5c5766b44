"""The uplink sends batches from the spool, over one connection after another, until they are acknowledged.

Invariant: a batch counts as delivered only after a verified acknowledgement of the fleet's receiver (`ack =
"receiver"`).  With `ack = "broker"`, a PUBACK below 0x80 suffices, except 0x10, "no matching subscribers".

`schedule` decides what to send and when, and `link_gate` decides which lanes may use the link.  `sending` does the work
of one connection, and `standing` holds the state that outlives a connection.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog

from agent.errors import Transient, Untrusted
from agent.formats.up.acks import Ack, verify_ack
from agent.link.mqtt import Connection
from agent.telemetry.uplink.link_gate import Metered
from agent.telemetry.uplink.link_policy import LinkPolicy
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.sending import Sending
from agent.telemetry.uplink.standing import Standing, UplinkCounts

_log = structlog.get_logger()


class Uplink:
    """The uplink of one vehicle.

    Call `run` for each connection, one at a time, and pass each acknowledgement to `handle_ack`.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._sending: Sending | None = None

    @property
    def counts(self) -> UplinkCounts:
        """Running totals since the start of the process."""
        return self._standing.counts

    def set_rules(self, pace: Pace, policy: LinkPolicy, metered: Metered) -> None:
        """Send by other limits and another link policy from now on, over the present connection as well."""
        standing = self._standing
        standing.pace = pace
        standing.bucket.set_rate(pace.backlog_bytes_s, standing.clock_s())
        standing.gate.set_rules(policy, metered)
        if self._sending is not None:
            self._sending.set_pace()

    async def run(self, connection: Connection) -> None:
        """Send until cancelled.  Raises Transient if the connection is lost.

        Batches that were sent over an earlier connection and not acknowledged are sent again.
        """
        await self._standing.gate.look(connection.own_address)
        self._sending = Sending(self._standing, connection)
        try:
            await self._sending.run()
        finally:
            self._sending = None

    def status(self) -> dict[str, Any]:
        """Return the totals, how many batches are set aside unanswered, and what the link allows, for `/status`."""
        standing = self._standing
        return {**asdict(standing.counts), "set_aside": standing.unanswered.set_aside, **standing.gate.status()}

    async def handle_ack(self, payload: bytes) -> None:
        """Handle an acknowledgement.  If it is forged or for another vehicle, it is counted and changes nothing."""
        standing = self._standing
        try:
            ack = verify_ack(payload, standing.route.acks_key)
            if ack.vehicle != standing.route.vehicle:
                raise Untrusted(
                    f"The acknowledgement is for vehicle {ack.vehicle}, but this is vehicle {standing.route.vehicle}. "
                    "The agent ignores it. Check which clients may publish to this vehicle's topic of acknowledgements."
                )
        except Untrusted as error:
            standing.counts.untrusted_acks += 1
            # Only the 1st, 2nd, 4th, 8th ... are logged, so that a flood does not fill the journal.
            if standing.counts.untrusted_acks.bit_count() == 1:
                _log.warning("ack_untrusted", reason=str(error), times=standing.counts.untrusted_acks)
            return
        try:
            left = await self._record(ack)
        except Transient as error:
            self._keep_late(ack, error)
            return
        for seq in left:
            standing.unanswered.forget((ack.epoch, seq))
        if self._sending is not None:
            self._sending.settle(ack, left)
        # The sweep comes last: removing a file waits for the file system's journal, and the in-flight window must not
        # wait for that.
        await asyncio.to_thread(standing.spool.sweep)

    def _keep_late(self, ack: Ack, error: Transient) -> None:
        """Note that the batches of `ack` are answered, although the disk refuses to remove them from the spool."""
        late = self._standing.late
        # One line is enough for an outage of the disk, which the outbox reports as well.
        if not late:
            _log.warning("ack_not_recorded", reason=str(error))
        if self._sending is not None:
            late.keep(ack, self._sending.sent_as(ack))
            self._sending.settle(ack, ())

    async def _record(self, ack: Ack) -> list[int]:
        """Remove from the spool the batches that the receiver stored or refused, and return their sequence numbers."""
        standing = self._standing
        stored = await asyncio.to_thread(standing.spool.acknowledge, ack.epoch, ack.stored)
        standing.counts.acknowledged += len(stored.removed)
        if stored.others:
            self._note_others(ack.epoch, stored.others)
        refused: list[int] = []
        if ack.refused:
            refused = await asyncio.to_thread(standing.spool.refuse, ack.epoch, ack.refused)
        if refused:
            standing.counts.refused += len(refused)
            reasons = sorted({ack.refused[seq].reason for seq in refused})
            _log.warning("batches_refused_by_receiver", batches=len(refused), reasons=reasons)
        return [*stored.removed, *refused]

    def _note_others(self, epoch: str, seqs: Sequence[int]) -> None:
        """Count the waiting batches under whose numbers another batch was acknowledged, and log the first of them."""
        counts = self._standing.counts
        if not counts.acked_others:
            _log.warning(
                "ack_of_other_batches",
                epoch=epoch,
                seq=seqs[0],
                reason="The fleet has stored another batch under the number of a batch that waits here. Either the "
                "disk of this vehicle was put back to an earlier state, or another head unit has the same identity, or "
                "an old acknowledgement was repeated. The waiting batch stays and is sent. If the disk was not "
                "put back, look for a second head unit with this identity, and enrol it anew.",
            )
        counts.acked_others += len(seqs)
