"""Decide which vehicles a pushed document is for, by the field `custom.audience` of its TUF target.  Pure.

    {"audience": {"brand": ["Aria"], "model_year": [2026, 2027]}}

Each list has the allowed values of one attribute.  A vehicle matches if every list contains the vehicle's own value.
An attribute without a list may have any value.  TUF signs the field but does not interpret it, so the verifier checks
the field.

Invariant: an audience that cannot be read matches no vehicle.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from agent.errors import Permanent

AudienceLists = Mapping[str, tuple[str | int, ...]]
EVERYONE: Final[AudienceLists] = {}
_KEYS: Final = ("brand", "model", "market", "model_year", "vehicle")


@dataclass(frozen=True, slots=True)
class Attributes:
    """Holds the attributes of a vehicle, as enrolment recorded them; `vehicle` is the pseudonym."""

    vehicle: str
    brand: str
    model: str
    market: str
    model_year: int


def matches(custom: object, attributes: Attributes) -> bool:
    """Return whether a target with this `custom` field is for the vehicle."""
    # A target without the field is for every vehicle.
    if custom is None:
        return True
    if not isinstance(custom, dict):
        return False
    audience = custom.get("audience", {})
    # A restriction that this version does not know could exclude this vehicle, so the target does not match.
    if not isinstance(audience, dict) or not set(audience) <= set(_KEYS):
        return False
    values = asdict(attributes)
    return all(isinstance(wanted, list) and values[key] in wanted for key, wanted in audience.items())


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
        lists[key] = (*lists.get(key, ()), int(value) if key == "model_year" else value)
    return lists
