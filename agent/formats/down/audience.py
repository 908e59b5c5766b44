"""Decide which vehicles a pushed document is for, by the field `custom.audience` of its TUF target.  Pure.

    {"audience": {"brand": ["Aria"], "model_year": [2026, 2027], "vehicle": ["9b2c0f6a41d87e53c6a1f0d2b7e4983a"]}}

Each list has the allowed values of one attribute.  A vehicle matches if every list contains the vehicle's own value.
An attribute without a list may have any value.  TUF signs the field but does not interpret it, so the verifier checks
the field.

Every vehicle reads the whole list of targets, so the field must not name other vehicles.  It has a digest in place of
each pseudonym.  The digest depends on the document as well, so two documents do not show that they are for the same
vehicle.

Invariant: an audience that cannot be read matches no vehicle.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from agent.errors import Permanent
from agent.formats.topics import is_vehicle

AudienceLists = Mapping[str, tuple[str | int, ...]]
EVERYONE: Final[AudienceLists] = {}
_KEYS: Final = ("brand", "model", "market", "model_year", "vehicle")
# Pseudonyms are random, so two digests of 128 bits are never equal by accident.  Longer digests would fill the bundle.
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Attributes:
    """Holds the attributes of a vehicle, as enrolment recorded them; `vehicle` is the pseudonym."""

    vehicle: str
    brand: str
    model: str
    market: str
    model_year: int


def audience_field(audience: AudienceLists, sha256: str) -> dict[str, object]:
    """Return the field `custom` for a document that is for `audience`.  `sha256` is the document's hash in hex."""
    lists = {key: list(values) for key, values in audience.items()}
    if "vehicle" in lists:
        # Sorting hides the order in which the publisher named the vehicles.
        lists["vehicle"] = sorted(_digest(str(vehicle), sha256) for vehicle in audience["vehicle"])
    return {"audience": lists}


def matches(custom: object, sha256: str, attributes: Attributes) -> bool:
    """Return whether a target is for the vehicle.

    `custom` is the target's field of this name, and `sha256` is the hash of the document in hex.
    """
    # A target without the field is for every vehicle.
    if custom is None:
        return True
    if not isinstance(custom, dict):
        return False
    audience = custom.get("audience", {})
    # A restriction that this version does not know could exclude this vehicle, so the target does not match.
    if not isinstance(audience, dict) or not set(audience) <= set(_KEYS):
        return False
    values = asdict(attributes) | {"vehicle": _digest(attributes.vehicle, sha256)}
    return all(isinstance(wanted, list) and values[key] in wanted for key, wanted in audience.items())


def selects(audience: AudienceLists, attributes: Attributes) -> bool:
    """Return whether a document that is published for `audience` is for the vehicle."""
    values = asdict(attributes)
    return all(values[key] in allowed for key, allowed in audience.items())


def _digest(vehicle: str, sha256: str) -> str:
    return hashlib.sha256(f"{sha256}/{vehicle}".encode()).digest()[:_DIGEST_BYTES].hex()


def parse_audience(text: str | None) -> AudienceLists:
    """Return the allowed values of each attribute that `text` names.  None or "" means every vehicle.

    For example, `brand=Aria,model=One,model=Two` becomes `{"brand": ("Aria",), "model": ("One", "Two")}`.

    Raises: Permanent naming the wrong part of `text`.
    """
    lists: dict[str, tuple[str | int, ...]] = {}
    for term in filter(None, (text or "").split(",")):
        key, equals, value = (word.strip() for word in term.partition("="))
        if key not in _KEYS or not equals or not value or not value.isprintable():
            raise Permanent(f"audience term {term!r} is not KEY=VALUE, with a KEY that is one of {', '.join(_KEYS)}")
        if key == "model_year" and not value.isdecimal():
            raise Permanent(f"audience term {term!r}: the model year is not a number; write it like model_year=2026")
        # A document for a mistyped vehicle would reach no vehicle, and the signed digest would not show why.
        if key == "vehicle" and not is_vehicle(value):
            raise Permanent(f"audience term {term!r}: this is not a pseudonym; copy the one that `fleet enrol` printed")
        lists[key] = (*lists.get(key, ()), int(value) if key == "model_year" else value)
    return lists
