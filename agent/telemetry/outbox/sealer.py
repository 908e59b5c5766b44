"""Signs an encoded body and seals it under a batch id, as a batch that the spool can store.  This file is pure."""

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats.up.recipient import RecipientPublicKey
from agent.formats.up.seal import Header, seal
from agent.telemetry.outbox.packer import Body
from agent.telemetry.spool.batch import BatchId, SealedBatch


class Sealer(msgspec.Struct, frozen=True):
    """Seals bodies for the fleet.

    `vehicle` is the vehicle's pseudonym, `device_key` is the vehicle's key for signing, `recipient` is the fleet's key
    for encryption, and `now_us` reads the vehicle's wall clock.
    """

    vehicle: str
    device_key: ec.EllipticCurvePrivateKey
    recipient: RecipientPublicKey
    now_us: Callable[[], int]

    def with_recipient(self, recipient: RecipientPublicKey) -> "Sealer":
        """Return a copy that seals to another key of the fleet."""
        return msgspec.structs.replace(self, recipient=recipient)

    def with_device_key(self, device_key: ec.EllipticCurvePrivateKey) -> "Sealer":
        """Return a copy that signs with another key of the vehicle."""
        return msgspec.structs.replace(self, device_key=device_key)

    def seal_body(self, id_: BatchId, body: Body) -> SealedBatch:
        """Return `body`, signed and sealed, as the batch with the id `id_`."""
        suite, key_id = self.recipient.suite, self.recipient.key_id
        header = Header(self.vehicle, id_.epoch, id_.seq, body.lane, key_id, suite, self.now_us())
        return SealedBatch(
            id_,
            body.lane,
            body.priority,
            seal(header, body.content, self.device_key, self.recipient),
            body.campaign,
            body.samples,
            body.first_t_us,
            body.last_t_us,
            body.carries,
            body.refers,
            body.fragment,
            body.reports,
            waits=body.checkpoint is not None,
        )
