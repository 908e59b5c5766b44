"""Makes random campaign documents for a world and a drive."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any

from tests.conditions.expressions import Expressions, spoilt

_RINGS = (None, None, 1, 1, 2, 3, 5, 20, 1000)
_FRAMES = (0, 0.5, 1, 1, 2, 3, 5, 10, 30)


def random_document(
    random: Random, known: Sequence[str], values: Mapping[str, Sequence[float]], times_us: Sequence[int]
) -> dict[str, Any]:
    """Return a document over the signals `known`.

    `values` has the finite values of the signals of the drive, `times_us` the times of its frames.
    """
    few = random.sample(known, min(len(known), random.randint(1, 3)))
    variables = {random.choice((name, f"Vehicle.{name}")): values.get(name, ()) for name in few}
    if random.random() < 0.01:
        variables["Vehicle.No.Such"] = ()
    expression = Expressions(random, variables).any()
    if random.random() < 0.04:
        expression = spoilt(random, expression)
    times = sorted(set(times_us))
    steps_us = sorted(later - earlier for earlier, later in pairwise(times)) or [1000]
    step_ms = steps_us[len(steps_us) // 2] / 1000
    scheme: dict[str, Any] = {"expression": expression}
    _maybe(random, scheme, 0.6, "triggerMode", random.choice(("ALWAYS", "RISING_EDGE", "RISING_EDGE")))
    _maybe(random, scheme, 0.5, "minimumTriggerIntervalMs", _duration_ms(random, step_ms))
    _maybe(random, scheme, 0.3, "conditionLanguageVersion", 1)
    document: dict[str, Any] = {"name": "c", "collectionScheme": {"conditionBasedCollectionScheme": scheme}}
    _maybe(random, document, 0.6, "postTriggerCollectionDuration", _duration_ms(random, step_ms))
    _maybe(random, document, 0.93, "signalsToCollect", _signals(random, known, step_ms))
    if random.random() < 0.15:
        _times(random, document, times_us)
    _maybe(random, document, 0.1, "priority", random.randint(0, 9))
    _maybe(random, document, 0.02, "status", random.choice(("RUNNING", "SUSPENDED")))
    if random.random() < 0.01:
        _spoil(random, document)
    return document


def _maybe(random: Random, fields: dict[str, Any], share: float, key: str, value: object) -> None:
    if random.random() < share:
        fields[key] = value


def _duration_ms(random: Random, step_ms: float) -> int:
    """Return a duration of about some frames, or one that has to do with a clock that was set."""
    if random.random() < 0.06:
        return random.choice((1000, 60_000, 60_001, 90_000))
    return round(step_ms * random.choice(_FRAMES))


def _signals(random: Random, known: Sequence[str], step_ms: float) -> list[dict[str, Any]]:
    signals: dict[str, dict[str, Any]] = {}
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        entry: dict[str, Any] = {"name": _name(random, known)}
        ring = random.choice(_RINGS)
        if ring is not None:
            entry["maxSampleCount"] = ring
        _maybe(random, entry, 0.3, "minimumSamplingIntervalMs", _duration_ms(random, step_ms))
        _maybe(random, entry, 0.25, "onChange", random.random() < 0.8)
        meant = entry["name"].removeprefix("Vehicle.")
        # The text does not say which of two spellings of one name counts.
        if meant not in {name.removeprefix("Vehicle.") for name in signals}:
            signals[entry["name"]] = entry
    if random.random() < 0.4:
        signals["edges"] = {"name": "Vehicle.MultiRisingEdgeTrigger"}
    entries = list(signals.values())
    random.shuffle(entries)
    return entries


def _name(random: Random, known: Sequence[str]) -> str:
    name = random.choice(known)
    message, _, signal = name.rpartition(".")
    prefix = random.choice(("", "Vehicle."))
    way = random.random()
    if way < 0.6:
        return prefix + name
    if way < 0.95:
        return prefix + random.choice(
            (f"{message}.*", f"*.{signal}", "*", f"{message[:1]}*.?", f"[{message[0]}B]*.{signal}", f"{message}.[!S]*")
        )
    return prefix + "No.Such"


def _times(random: Random, document: dict[str, Any], times_us: Sequence[int]) -> None:
    low, high = min(times_us), max(times_us)
    start_us, end_us = sorted(
        random.choice((random.choice(times_us), random.randint(low, high), random.choice(times_us) + 1))
        for _ in range(2)
    )
    way = random.random()
    if way < 0.6:
        document["startTime"] = _time(random, start_us)
    if way > 0.3:
        document["expiryTime"] = _time(random, max(end_us, start_us + 1000))


def _time(random: Random, t_us: int) -> float | str:
    if random.random() < 0.5:
        return t_us / 1_000_000
    return f"{datetime.fromtimestamp(t_us // 10**6, UTC).replace(microsecond=t_us % 10**6):%Y-%m-%dT%H:%M:%S.%fZ}"


def _spoil(random: Random, document: dict[str, Any]) -> None:
    scheme = document["collectionScheme"]["conditionBasedCollectionScheme"]
    fields: tuple[tuple[dict[str, Any], str, object], ...] = (
        (scheme, "triggerMode", random.choice(("always", "FALLING_EDGE", ""))),
        (scheme, "minimumTriggerIntervalMs", random.choice((-1, 2**32, "5"))),
        (scheme, "conditionLanguageVersion", random.choice((0, 2))),
        (scheme, "expression", random.choice(("", "1" * 2049))),
        (document, "postTriggerCollectionDuration", random.choice((-1, 2**32))),
        (document, "signalsToCollect", [{"name": "A.S", "maxSampleCount": random.choice((0, -1, 2**32))}]),
        (document, "signalsToCollect", [{"name": "A.S", "minimumSamplingIntervalMs": random.choice((-1, 2**32))}]),
        (document, "signalsToCollect", [{"name": f"A.S{number}"} for number in range(1001)]),
        (document["collectionScheme"], "timeBasedCollectionScheme", {"periodMs": 10_000}),
    )
    holder, key, value = random.choice(fields)
    holder[key] = value
