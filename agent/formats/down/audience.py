"""Which vehicles a push is for: the `custom.audience` of a TUF target.  Pure.

    {"audience": {"brand": ["Aria"], "model_year": [2026, 2027]}}

Every list that is given must contain the vehicle's value; a list that is not given does not restrict.  TUF signs the
field but does not read it, so the verifier checks it.

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
    """The attributes of a vehicle, as enrolment recorded them; `vehicle` is the pseudonym."""

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
    # A restriction that this version does not know may exclude this vehicle.
    if not isinstance(audience, dict) or not set(audience) <= set(_KEYS):
        return False
    values = asdict(attributes)
    return all(isinstance(wanted, list) and values[key] in wanted for key, wanted in audience.items())


def parse_audience(text: str | None) -> AudienceLists:
    """Read `brand=Aria,model=One,model=Two,model_year=2026` as lists; None or "" is everyone.

    Raises: Permanent naming the term.
    """
    lists: dict[str, tuple[str | int, ...]] = {}
    for term in filter(None, (text or "").split(",")):
        key, equals, value = (word.strip() for word in term.partition("="))
        if key not in _KEYS or not equals or not value or not value.isprintable():
            raise Permanent(f"audience term {term!r}: write KEY=VALUE with KEY one of {', '.join(_KEYS)}")
        if key == "model_year" and not value.isdecimal():
            raise Permanent(f"audience term {term!r}: a model year is a number.")
        lists[key] = (*lists.get(key, ()), int(value) if key == "model_year" else value)
    return lists
