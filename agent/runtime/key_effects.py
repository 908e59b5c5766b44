"""Change the running agent by the keys and authorities that the fleet pushes."""

from collections.abc import Mapping

import msgspec

from agent.formats.down.documents import AUTHORITIES, RECIPIENT, Documents
from agent.formats.up.recipient import RecipientPublicKey
from agent.link.authorities import Authorities
from agent.runtime.effects import Change
from agent.telemetry.outbox.outbox import Outbox


class RecipientEffect:
    """Makes the outbox seal to the key of `recipient.json`, or else to the key from the vehicle's enrolment."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._enrolled = outbox.sealer.recipient

    def prepare(self, documents: Documents) -> Change:
        """Return the change that makes the outbox seal to the key of `documents`.  The key is parsed already."""
        document = next(iter(documents[RECIPIENT.name]), None)
        return _RecipientChange(self._outbox, self._enrolled if document is None else document.value)


class _RecipientChange(msgspec.Struct, frozen=True):
    outbox: Outbox
    recipient: RecipientPublicKey

    def write(self) -> None:
        """Write nothing, because the push store has the document."""

    def withdraw(self) -> None:
        """Remove nothing, because no other file holds the key."""

    async def switch(self) -> Mapping[str, object]:
        self.outbox.sealer = self.outbox.sealer.with_recipient(self.recipient)
        return {"sealing_key": self.recipient.key_id}


class AuthoritiesEffect:
    """Makes the link trust the authorities of `authorities.pem`, or else the authority from the enrolment."""

    def __init__(self, authorities: Authorities) -> None:
        self._authorities = authorities

    def prepare(self, documents: Documents) -> Change:
        """Return the change that makes the link trust the authorities of `documents`."""
        document = next(iter(documents[AUTHORITIES.name]), None)
        return _AuthoritiesChange(self._authorities, None if document is None else document.content)


class _AuthoritiesChange(msgspec.Struct, frozen=True):
    authorities: Authorities
    content: bytes | None

    def write(self) -> None:
        self.authorities.write(self.content)

    def withdraw(self) -> None:
        """Keep the file, because without it the vehicle might not recognise its broker."""

    async def switch(self) -> Mapping[str, object]:
        # The next connection reads the file.
        return {"authorities": "enrolled" if self.content is None else "pushed"}
