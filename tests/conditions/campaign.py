"""Reads the fields of a condition-based campaign document, and says which signals its rules mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from tests.conditions.language import Node, Refused, read_tree
from tests.conditions.meaning import refuse_misuse

EDGE_NAMES = "Vehicle.MultiRisingEdgeTrigger"
_MOST_MS = 2**32 - 1
_FOREVER_US = 253_402_214_400 * 10**6
_SCHEME = "collectionScheme.conditionBasedCollectionScheme"


@dataclass(frozen=True)
class Rule:
    """One entry of `signalsToCollect`.  Times are in microseconds."""

    name: str
    ring: int
    interval_us: int
    on_change: bool


@dataclass(frozen=True)
class Campaign:
    """The content of one document.  Times are in microseconds."""

    tree: Node
    rising_edge: bool
    interval_us: int
    duration_us: int
    start_us: int
    expiry_us: int
    running: bool
    rules: tuple[Rule, ...]

    @property
    def collects_edge_names(self) -> bool:
        return any(rule.name == EDGE_NAMES for rule in self.rules)

    def rule_of(self, signal: str) -> Rule | None:
        """Return the rule that holds for `Message.Signal`."""
        names = (signal, f"Vehicle.{signal}")
        exact = [rule for rule in self.rules if rule.name in names]
        matching = [rule for rule in self.rules if any(fnmatchcase(name, rule.name) for name in names)]
        return next(iter(exact + matching), None)


def meaning(name: str, known: Iterable[str]) -> str | None:
    """Return which `Message.Signal` of `known` a name without wildcards means, or None."""
    known = set(known)
    if name in known:
        return name
    rest = name.removeprefix("Vehicle.")
    return rest if rest in known else None


def read_campaign(document: Mapping[str, Any]) -> Campaign:
    """Return the content of a document.  Raises: Refused."""
    schemes = document["collectionScheme"]
    scheme = schemes["conditionBasedCollectionScheme"]
    if schemes.get("timeBasedCollectionScheme") is not None:
        raise Refused("collectionScheme", "two schemes in one document")
    if scheme.get("triggerMode", "ALWAYS") not in ("ALWAYS", "RISING_EDGE"):
        raise Refused(f"{_SCHEME}.triggerMode", "another mode")
    if scheme.get("conditionLanguageVersion", 1) != 1:
        raise Refused(f"{_SCHEME}.conditionLanguageVersion", "another version")
    interval_ms = _number(scheme, "minimumTriggerIntervalMs", 0, 0, _SCHEME)
    duration_ms = _number(document, "postTriggerCollectionDuration", 0, 0)
    signals = document.get("signalsToCollect", [])
    if len(signals) > 1000:
        raise Refused("signalsToCollect", "more than 1000")
    rules = tuple(_rule(signal, f"signalsToCollect[{number}]") for number, signal in enumerate(signals))
    tree = read_tree(scheme["expression"])
    refuse_misuse(tree)
    return Campaign(
        tree,
        scheme.get("triggerMode") == "RISING_EDGE",
        interval_ms * 1000,
        duration_ms * 1000,
        _time_us(document.get("startTime"), 0),
        _time_us(document.get("expiryTime"), _FOREVER_US),
        document.get("status", "RUNNING") == "RUNNING",
        rules,
    )


def _rule(signal: Mapping[str, Any], where: str) -> Rule:
    return Rule(
        signal["name"],
        _number(signal, "maxSampleCount", 1000, 1, where),
        _number(signal, "minimumSamplingIntervalMs", 0, 0, where) * 1000,
        signal.get("onChange", False),
    )


def _number(fields: Mapping[str, Any], key: str, default: int, least: int, where: str = "") -> int:
    number = fields.get(key, default)
    if not isinstance(number, int) or not least <= number <= _MOST_MS:
        raise Refused(f"{where}.{key}".lstrip("."), "out of limits")
    return number


def _time_us(time: float | str | None, default_us: int) -> int:
    if time is None:
        return default_us
    seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time
    return round(seconds * 1_000_000)
