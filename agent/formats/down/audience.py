"""Decide which vehicles a pushed document is for, by the field `custom.audience` of its TUF target.  Pure.

    {"audience": {"brand": ["Aria"], "model_year": [2026, 2027], "vehicle": ["9b2c0f6a41d87e53c6a1f0d2b7e4983a"],
                  "percent": {"salt": "c6a1f0d2b7e4983a9b2c0f6a41d87e53", "ppm": 100000}}}

Each list has the allowed values of one attribute.  A vehicle matches a rule if every list contains the vehicle's own
value.  An attribute without a list may have any value.  An audience of several rules is a list of such objects, and a
vehicle belongs to it if the vehicle matches at least one of them.  TUF signs the field but does not interpret it, so
the verifier checks the field.

`percent` takes a share of the vehicles.  Each vehicle draws a number from 0 to 999,999 for each document:

    SHA-256(salt, newline, pseudonym), of which the first 8 bytes are a big-endian integer, times 1,000,000 / 2^64

The vehicle belongs to the share if its number is below `ppm` (parts per million).  The salt depends on the name of the
document and not on its content.  A vehicle therefore stays in the share when the document changes or the share grows.

A staged roll-out publishes two contents of one document at the same time.  The earlier content has the field
`custom.except`, an audience in the same form, of the vehicles that get the new content instead.

Every vehicle reads the whole list of targets, so the field must not name other vehicles.  It has a digest in place of
each pseudonym.  The digest depends on the document as well, so two documents do not show that they are for the same
vehicle.  For the same reason, the salt is a digest of the name of the document.

Invariant: an audience or a rule that cannot be read matches no vehicle.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import Permanent, did_you_mean
from agent.formats.topics import is_vehicle

AudienceRule = Mapping[str, tuple[str | int | float, ...]]
"""The allowed values of each attribute that a rule names.  `percent` has one value, above 0 and at most 100."""
Audience = Sequence[AudienceRule]
"""A vehicle belongs to an audience if it matches at least one rule.  An audience without rules is every vehicle."""
EVERYONE: Final[Audience] = ()
EXCEPT: Final = "except"
"""The name of the field for vehicles that get another content of the document."""
LISTED: Final = ("brand", "model", "market", "model_year", "software")
"""The attributes that many vehicles share."""
_KEYS: Final = (*LISTED, "vehicle", "percent")
# Pseudonyms are random, so two digests of 128 bits are never equal by accident.  Longer digests would fill the bundle.
_DIGEST_BYTES: Final = 16
_PPM: Final = 1_000_000
# TUF cannot sign numbers with a fraction, so a share is a whole number of parts per million.
_PPM_OF_PERCENT: Final = _PPM // 100
_PERCENT: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?", re.ASCII)
VALUE_CHARS: Final = 100
"""The longest value of an attribute, because every vehicle reads all audiences."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Holds the attributes of a vehicle; `vehicle` is the pseudonym.

    `software` is the version of its software, or "" if that is not known.  Enrolment recorded the other attributes.
    """

    vehicle: str
    brand: str
    model: str
    market: str
    model_year: int
    software: str = ""


@dataclass(frozen=True, slots=True)
class SignedRule:
    """Holds one rule of a signed audience.

    `allowed` has the allowed values of the attributes that many vehicles share.  `digests` has the digests of the
    vehicles that the rule names, for a document with the hash `sha256`; None means any vehicle.  A vehicle must draw a
    number below `ppm` with `salt`.
    """

    allowed: Mapping[str, frozenset[str | int]]
    digests: frozenset[str] | None
    sha256: str
    salt: str
    ppm: int

    def allows(self, attributes: Attributes) -> bool:
        """Return whether the attributes other than the pseudonym match."""
        return all(getattr(attributes, key) in values for key, values in self.allowed.items())

    def picks(self, vehicle: str) -> bool:
        """Return whether the pseudonym matches."""
        named = self.digests is None or _digest(vehicle, self.sha256) in self.digests
        return named and (self.ppm >= _PPM or draw(self.salt, vehicle) < self.ppm)

    @property
    def picks_all(self) -> bool:
        """Return whether every pseudonym matches."""
        return self.digests is None and self.ppm >= _PPM


def salt_of(name: str) -> str:
    """Return the salt of the shares of a document.  `name` is the path that the document's own name gives."""
    return hashlib.sha256(name.encode()).digest()[:_DIGEST_BYTES].hex()


def draw(salt: str, vehicle: str) -> int:
    """Return the number from 0 to 999,999 that the vehicle draws."""
    digest = hashlib.sha256(f"{salt}\n{vehicle}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _PPM >> 64


def audience_field(audience: Audience, sha256: str, name: str) -> dict[str, object]:
    """Return the field `custom` for a document that is for `audience`.

    `sha256` is the document's hash in hex, and `name` is the path that the document's own name gives.
    """
    rules = [_rule_field(rule, sha256, name) for rule in audience]
    # Vehicles with older software know only an audience of one rule.
    return {"audience": rules[0] if len(rules) == 1 else rules}


def _rule_field(rule: AudienceRule, sha256: str, name: str) -> dict[str, object]:
    field: dict[str, object] = {key: list(values) for key, values in rule.items()}
    if "vehicle" in rule:
        # Sorting hides the order in which the publisher named the vehicles.
        field["vehicle"] = sorted(_digest(str(vehicle), sha256) for vehicle in rule["vehicle"])
    if "percent" in rule:
        field["percent"] = {"salt": salt_of(name), "ppm": round(float(rule["percent"][0]) * _PPM_OF_PERCENT)}
    return field


def signed_rules(custom: object, sha256: str) -> tuple[SignedRule, ...]:
    """Return the rules of a target, without those that cannot be read.

    `custom` is the target's field of this name, and `sha256` is the hash of the document in hex.
    """
    # A target without the field is for every vehicle.
    if custom is None:
        return (_read_rule({}, sha256),)
    if not isinstance(custom, dict):
        return ()
    audience = custom.get("audience", {})
    found = []
    for rule in audience if isinstance(audience, list) else [audience]:
        try:
            found.append(_read_rule(rule, sha256))
        except (TypeError, ValueError):
            continue
    return tuple(found)


def _read_rule(rule: object, sha256: str) -> SignedRule:
    """Read one rule.  Raises: TypeError or ValueError if this version cannot read it."""
    # A restriction that this version does not know could exclude this vehicle, so such a rule is not read.
    if not isinstance(rule, dict) or not set(rule) <= set(_KEYS):
        raise ValueError
    lists = {key: _read_list(values) for key, values in rule.items() if key != "percent"}
    digests = lists.pop("vehicle", None)
    share = rule.get("percent", {"salt": "", "ppm": _PPM})
    if not isinstance(share, dict) or set(share) != {"salt", "ppm"}:
        raise ValueError
    salt, ppm = share["salt"], share["ppm"]
    if not isinstance(salt, str) or type(ppm) is not int:
        raise TypeError
    named = None if digests is None else frozenset(map(str, digests))
    return SignedRule(lists, named, sha256, salt, ppm)


def _read_list(values: object) -> frozenset[str | int]:
    if not isinstance(values, list) or not all(isinstance(value, str | int) for value in values):
        raise TypeError
    return frozenset(values)


def matches(custom: object, sha256: str, attributes: Attributes) -> bool:
    """Return whether a target is for the vehicle.

    `custom` is the target's field of this name, and `sha256` is the hash of the document in hex.
    """
    return _belongs(signed_rules(custom, sha256), attributes) and not _belongs(
        excepted_rules(custom, sha256), attributes
    )


def excepted_rules(custom: object, sha256: str) -> tuple[SignedRule, ...]:
    """Return the rules of the vehicles that get another content of the document, as `signed_rules` does."""
    return signed_rules({"audience": custom.get(EXCEPT, [])}, sha256) if isinstance(custom, dict) else ()


def _belongs(rules: Iterable[SignedRule], attributes: Attributes) -> bool:
    return any(rule.allows(attributes) and rule.picks(attributes.vehicle) for rule in rules)


def selects(audience: Audience, attributes: Attributes, name: str) -> bool:
    """Return whether a document that is published for `audience` is for the vehicle.

    `name` is the path that the document's own name gives.
    """
    return not audience or matches(audience_field(audience, "", name), "", attributes)


def _digest(vehicle: str, sha256: str) -> str:
    return hashlib.sha256(f"{sha256}/{vehicle}".encode()).digest()[:_DIGEST_BYTES].hex()


def parse_audience(text: str | None) -> Audience:
    """Return the rules in `text`, which a semicolon separates.  None or "" means every vehicle.

    For example, `brand=Aria,model=One,model=Two;market=EU,percent=10` becomes
    `({"brand": ("Aria",), "model": ("One", "Two")}, {"market": ("EU",), "percent": (10.0,)})`.

    Raises: Permanent naming the wrong part of `text`.
    """
    if not (text or "").strip():
        return EVERYONE
    rules = []
    for part in (text or "").split(";"):
        rule = _parse_rule(part)
        if not rule:
            # An empty rule would match every vehicle, and it is more likely a slip.
            raise Permanent(f"audience {text!r}: a rule beside a semicolon is empty; write KEY=VALUE,...;KEY=VALUE,...")
        rules.append(rule)
    return joined(rules)


def joined(rules: Iterable[AudienceRule]) -> Audience:
    """Return the audience of `rules`.  Rules that all name the same one attribute become one rule with all values."""
    distinct: list[AudienceRule] = []
    for rule in rules:
        if rule not in distinct:
            distinct.append(rule)
    keys = {key for rule in distinct for key in rule}
    if len(distinct) > 1 and len(keys) == 1 and "percent" not in keys:
        (key,) = keys
        return ({key: tuple(dict.fromkeys(value for rule in distinct for value in rule[key]))},)
    return tuple(distinct)


def _parse_rule(text: str) -> AudienceRule:
    rule: dict[str, tuple[str | int | float, ...]] = {}
    for term in filter(str.strip, text.split(",")):
        key, equals, value = (word.strip() for word in term.partition("="))
        if equals and key not in _KEYS and (near := did_you_mean(key, _KEYS)):
            raise Permanent(f"audience term {term!r}: there is no key {key!r}; {near}")
        if key not in _KEYS or not equals or not value or not value.isprintable() or len(value) > VALUE_CHARS:
            raise Permanent(
                f"audience term {term!r} is not KEY=VALUE, with a KEY that is one of {', '.join(_KEYS)}, "
                f"and a VALUE of at most {VALUE_CHARS} characters"
            )
        if key == "percent" and key in rule:
            raise Permanent(f"audience term {term!r}: percent is given twice in one rule; write only one of them")
        found = _parse_value(term, key, value)
        if found not in rule.get(key, ()):
            rule[key] = (*rule.get(key, ()), found)
    return rule


def _parse_value(term: str, key: str, value: str) -> str | int | float:
    if key == "model_year":
        if not value.isascii() or not value.isdecimal():
            raise Permanent(f"audience term {term!r}: the model year is not a number; write it like model_year=2026")
        return int(value)
    if key == "percent":
        if not _PERCENT.fullmatch(value) or not 0 < float(value) <= 100:
            raise Permanent(
                f"audience term {term!r}: percent must be above 0 and at most 100, with at most 4 decimal places; "
                "write it like percent=10"
            )
        return float(value)
    # A document for a mistyped vehicle would reach no vehicle, and the signed digest would not show why.
    if key == "vehicle" and not is_vehicle(value):
        raise Permanent(f"audience term {term!r}: this is not a pseudonym; copy the one that `fleet enrol` printed")
    return value


def audience_text(audience: Audience) -> str:
    """Return `audience` as `parse_audience` reads it, or "every vehicle"."""
    rules = (",".join(f"{key}={_value_text(value)}" for key, values in rule.items() for value in values)
             for rule in audience)  # fmt: skip
    return "; ".join(rules) or "every vehicle"


def _value_text(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
