"""Parses `recipient.json`, which gives the vehicles a new sealing key.  Pure.

The document has the content of `hpke.pub.json` (agent/formats/up/recipient.py): suite, key_id and public_key.  While a
release with this document is in force, the vehicle seals to its key.  Otherwise the vehicle seals to the key from its
enrolment.  Batches that were sealed before stay as they are: the fleet keeps all its sealing keys.

A document is refused unless sealing to its key works, because a vehicle that cannot seal collects nothing.  For
example, a point of low order is 32 bytes like any X25519 key, and no sender can agree on a secret with it.
"""

from typing import Final

from agent.errors import Permanent
from agent.formats.down.strict import read_object, refuse_unknown
from agent.formats.up.recipient import SUITES, RecipientPublicKey

DOCUMENT_BYTES: Final = 4_096
"""The size limit of the document.  The key of the larger suite takes 1,700 bytes in base64."""
_FIELDS: Final = ("suite", "key_id", "public_key")


def parse_recipient(document: bytes, source: str) -> RecipientPublicKey:
    """Return the sealing key in `document`.

    Raises: Permanent naming `source` if the document is malformed, or if nothing can be sealed to its key.
    """
    refuse_unknown(read_object(document, source, "a sealing key (JSON)"), _FIELDS, source)
    recipient = RecipientPublicKey.from_json(document, source)
    try:
        SUITES[recipient.suite].encrypt(b"", recipient.key, info=b"")
    except Exception as error:
        # The library names no exceptions for keys that are well-formed and unusable.
        raise Permanent(
            f"{source}: nothing can be sealed to this public_key ({error}); make a key with `fleet keys rotate sealing`"
        ) from error
    return recipient
