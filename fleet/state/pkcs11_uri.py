"""Reads PKCS#11 URIs (RFC 7512), which name a key in a token: a smart card, a security module, or SoftHSM.

    pkcs11:token=root-1;object=root1?module-path=/usr/lib/softhsm/libsofthsm2.so

The attributes before `?` say which key is meant: all that are given must agree with the token and the key.  Those after
`?` say how to reach it.  This module is pure: it opens no token.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import Permanent, nearest

SCHEME: Final = "pkcs11:"
MAX_LENGTH: Final = 4096
"""Longer texts are refused: a URI of all attributes, each of 255 escaped bytes, fits."""

_TEXTS: Final = ("token", "serial", "manufacturer", "model", "object")
_PATH: Final = (*_TEXTS, "id", "slot-id", "type")
_QUERY: Final = ("module-path", "pin-source")
_ESCAPED: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_EXAMPLE: Final = "Write, for example, pkcs11:token=root-1;object=root1."


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """Holds the attributes of a URI; None stands for an attribute that the URI does not have.

    `object` and `id` are the label and the identifier of the key.  `pin_source` is the path of a file with the PIN.
    """

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    slot_id: int | None = None
    module_path: str | None = None
    pin_source: str | None = None


def parse(text: str) -> Pkcs11Uri:
    """Read a URI.

    Raises: Permanent if the text is not a URI, names no key, has an attribute twice or one that is unknown, or has the
    PIN itself, which every user of the machine could read in the list of processes.
    """
    if not text.startswith(SCHEME) or len(text) > MAX_LENGTH:
        raise Permanent(f"{text[:80]!r} is not a PKCS#11 URI of at most {MAX_LENGTH} characters. {_EXAMPLE}")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    found = _attributes(path, ";", _PATH, text) | _attributes(query, "&", _QUERY, text)
    if found.get("type", b"private") not in (b"private", b"public"):
        raise Permanent(f"{text}: the type must be private. {_EXAMPLE}")
    slot = found.get("slot-id")
    if slot is not None and not re.fullmatch(rb"[0-9]{1,20}", slot):
        raise Permanent(f"{text}: slot-id must be a whole number.")
    if not found.get("object") and not found.get("id"):
        raise Permanent(f"{text} names no key. Add its label (object=) or its identifier (id=%01). {_EXAMPLE}")
    source = _text(found, "pin-source", text)
    if source is not None:
        source = source.removeprefix("file://").removeprefix("file:")
        if source.startswith("|"):  # RFC 7512 lets this mean a command; a URI must not run one
            raise Permanent(f"{text}: pin-source must be a file, not a command.")
    return Pkcs11Uri(
        **{name: _text(found, name, text) for name in _TEXTS},
        id=found.get("id"),
        slot_id=None if slot is None else int(slot),
        module_path=_text(found, "module-path", text),
        pin_source=source,
    )


def _attributes(part: str, separator: str, known: tuple[str, ...], source: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for word in filter(None, part.split(separator)):
        name, equals, value = word.partition("=")
        if name in ("pin-value", "pin_value"):
            raise Permanent(
                "The PIN must not be part of the URI, because other users can read command lines. "
                "Use --pin-file, pin-source, the variable FLEET_PIN, or answer the question."
            )
        if not equals or name not in known:
            guess = nearest(name, known)
            hint = f" Did you mean {guess}?" if guess else f" Known here are {', '.join(known)}."
            raise Permanent(f"{source}: the attribute {name!r} is unknown.{hint}")
        if name in found:
            raise Permanent(f"{source}: the attribute {name} is there twice. Remove one of them.")
        if not _ESCAPED.fullmatch(value):
            raise Permanent(f"{source}: the value of {name} has a % that no two hexadecimal digits follow. Write %25.")
        # An argument of the command line that is not UTF-8 has surrogates, which stand for its bytes.
        found[name] = _ESCAPE.sub(_unescaped, value.encode(errors="surrogateescape"))
    return found


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode())


def _text(found: Mapping[str, bytes], name: str, source: str) -> str | None:
    value = found.get(name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise Permanent(f"{source}: the value of {name} is not UTF-8.") from error
