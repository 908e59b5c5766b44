"""Say when a flag may be on: features on demand begin and end, and unconfirmed toggles become stale.  Pure.

The terms stand in the `metadata` of a flag, so every tool of flagd reads the document unchanged:

    "metadata": {
      "feature.start": "2026-12-01T00:00:00Z",    the feature is off before this time
      "feature.end": "2027-03-31T22:00:00Z",      and off from this time on
      "feature.offlineGraceDays": 14,             unless the vehicle has had no word from the fleet since the end:
                                                  then the feature goes on for at most this long
      "feature.outside": "off",                   the variant before the start and after the end; without this
                                                  name, `defaultVariant`
      "stale.afterDays": 30,                      if the fleet's latest signature is older than this,
      "stale.policy": "default"                   apps get `defaultVariant`; "keep" changes nothing but the metadata
    }

The vehicle writes the present state into the same metadata: `feature.state` is `before`, `on`, `grace` or `ended`, and
`stale.state` is `fresh` or `stale`.

Invariant: a wrong clock neither switches a feature on nor prolongs it.  A feature is on only after a start that has
certainly passed, and before an end that cannot have passed yet (`Moment`).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.errors import Permanent, nearest
from agent.formats.iso_time import ns_of_iso

START: Final = "feature.start"
END: Final = "feature.end"
GRACE_DAYS: Final = "feature.offlineGraceDays"
OUTSIDE: Final = "feature.outside"
STALE_DAYS: Final = "stale.afterDays"
POLICY: Final = "stale.policy"
FEATURE_STATE: Final = "feature.state"
STALE_STATE: Final = "stale.state"
DAYS: Final = 36_500
"""The greatest number of days.  A hundred years is longer than any vehicle lasts, so more is a mistake."""
_DAY_S: Final = 86_400
_NAMES: Final = (START, END, GRACE_DAYS, OUTSIDE, STALE_DAYS, POLICY)
_PREFIXES: Final = ("feature.", "stale.")


class Moment(msgspec.Struct, frozen=True):
    """Holds what a vehicle knows about the present time, in seconds since the Unix epoch.

    `certain_s` has certainly passed.  The present time is not after `possible_s`, as far as the vehicle knows.  The
    fleet made its latest signature at `signed_s`.
    """

    certain_s: float
    possible_s: float
    signed_s: float


class Validity(msgspec.Struct, frozen=True):
    """The terms of one flag.  A time or an age that is None sets no limit.

    `outside` is None if the default variant applies outside of the feature's time.
    """

    start_s: float | None = None
    end_s: float | None = None
    grace_s: float = 0.0
    outside: str | None = None
    stale_s: float | None = None
    keeps_stale: bool = False

    def state_at(self, moment: Moment) -> "State":
        """Return the state of the flag at `moment`."""
        stale = self.stale_s is not None and moment.possible_s - moment.signed_s > self.stale_s
        if self.start_s is not None and moment.certain_s < self.start_s:
            return State("before", stale)
        if self.end_s is None or moment.possible_s < self.end_s:
            return State("on", stale)
        # A later signature shows that the vehicle had contact after the end, so the fleet could have prolonged the
        # feature and has not.
        grace = moment.signed_s < self.end_s and moment.possible_s < self.end_s + self.grace_s
        return State("grace" if grace else "ended", stale)


class State(msgspec.Struct, frozen=True):
    """The state of a flag at one moment; `feature` is `before`, `on`, `grace` or `ended`."""

    feature: str
    stale: bool


def read_validity(flag: Mapping[str, Any], where: str) -> Validity | None:
    """Return the terms in the metadata of a checked `flag`, or None if it has none.

    Raises: Permanent, which names `where` and the fault.
    """
    metadata = flag["metadata"]
    _refuse_unknown(metadata, where)
    terms = {name: metadata[name] for name in _NAMES if name in metadata}
    if not terms:
        return None
    for name, needed in ((GRACE_DAYS, (END,)), (OUTSIDE, (START, END)), (POLICY, (STALE_DAYS,))):
        if name in terms and not any(each in terms for each in needed):
            raise Permanent(f"{where}: metadata {name!r} has no effect without {' or '.join(needed)}")
    outside = terms.get(OUTSIDE)
    if outside is not None and outside not in flag["variants"]:
        raise Permanent(
            f"{where}: metadata {OUTSIDE!r} is {outside!r}, which is not one of the variants; name one of "
            f"{', '.join(map(repr, flag['variants']))}"
        )
    policy = terms.get(POLICY, "default")
    if policy not in ("keep", "default"):
        raise Permanent(f"{where}: metadata {POLICY!r} must be keep or default, not {policy!r}")
    validity = Validity(
        start_s=_time_s(terms, START, where),
        end_s=_time_s(terms, END, where),
        grace_s=_days_s(terms, GRACE_DAYS, where) or 0.0,
        outside=outside,
        stale_s=_days_s(terms, STALE_DAYS, where),
        keeps_stale=policy == "keep",
    )
    _refuse_without_effect(validity, flag, where)
    return validity


def validities_in(resolved: str) -> dict[str, Validity]:
    """Return the terms of each flag that has any, by key; `resolved` is the JSON text of a checked definition.

    Raises: Permanent, as `read_validity` does.
    """
    flags = json.loads(resolved)["flags"].items()
    return {key: found for key, flag in flags if (found := read_validity(flag, f"flag {key!r}")) is not None}


def refuse_in_set(metadata: Mapping[str, Any], where: str) -> None:
    """Raise Permanent if `metadata`, which is that of a whole document, has terms."""
    for name in metadata:
        if name.startswith(_PREFIXES):
            raise Permanent(f"{where}: metadata {name!r} has no effect for all flags together; give it to each flag")


def states_at(validities: Mapping[str, Validity], moment: Moment) -> dict[str, State]:
    """Return the state at `moment` of each flag that has terms, by the key of the flag."""
    return {key: validity.state_at(moment) for key, validity in validities.items()}


def resolved_at(resolved: str, validities: Mapping[str, Validity], states: Mapping[str, State]) -> str:
    """Return the JSON text of a flag definition with each flag as it is in its state.

    A flag outside of its time, or one that is stale, has no targeting, so every app gets the same variant.
    """
    if not states:
        return resolved
    definition = json.loads(resolved)
    for key, state in states.items():
        flag, validity = definition["flags"][key], validities[key]
        outside = state.feature in ("before", "ended")
        if outside or (state.stale and not validity.keeps_stale):
            flag.pop("targeting", None)
        if outside and validity.outside is not None:
            flag["defaultVariant"] = validity.outside
        if validity.start_s is not None or validity.end_s is not None:
            flag["metadata"][FEATURE_STATE] = state.feature
        if validity.stale_s is not None:
            flag["metadata"][STALE_STATE] = "stale" if state.stale else "fresh"
    return json.dumps(definition)


def _refuse_unknown(metadata: Mapping[str, Any], where: str) -> None:
    """Raise Permanent if `metadata` has a name that looks like a term but is none, because it would have no effect."""
    for name in metadata:
        if name.startswith(_PREFIXES) and name not in _NAMES:
            close = nearest(name, _NAMES)
            remedy = f"did you mean {close!r}?" if close else f"the names are {', '.join(_NAMES)}"
            raise Permanent(f"{where}: metadata {name!r} is not known; {remedy}")


def _time_s(terms: Mapping[str, Any], name: str, where: str) -> float | None:
    if name not in terms:
        return None
    if not isinstance(terms[name], str):
        raise Permanent(f"{where}: metadata {name!r} must be a time like 2026-07-01T08:00:00Z, not {terms[name]!r}")
    try:
        return ns_of_iso(terms[name], f"{where}: metadata {name!r}") / 1e9
    except OverflowError as error:
        raise Permanent(f"{where}: metadata {name!r} is {terms[name]!r}, which no clock can show") from error


def _days_s(terms: Mapping[str, Any], name: str, where: str) -> float | None:
    if name not in terms:
        return None
    days = terms[name]
    # The comparison is false for NaN, which is refused as well.
    if not isinstance(days, int | float) or isinstance(days, bool) or not 0 < days <= DAYS:
        raise Permanent(f"{where}: metadata {name!r} must be a number of days up to {DAYS:,}, not {days!r}")
    return days * _DAY_S


def _refuse_without_effect(validity: Validity, flag: Mapping[str, Any], where: str) -> None:
    """Raise Permanent if the flag gives apps the same variant whatever the time is, so that it would never end."""
    if validity.start_s is not None and validity.end_s is not None and validity.end_s <= validity.start_s:
        raise Permanent(f"{where}: metadata {END!r} must be after {START!r}")
    if "targeting" in flag:
        return
    default = flag.get("defaultVariant")
    timed = validity.start_s is not None or validity.end_s is not None
    if timed and validity.outside in (None, default):
        raise Permanent(
            f"{where}: apps would get {default!r} before the start and after the end as well; name another variant in "
            f"metadata {OUTSIDE!r}"
        )
    if validity.stale_s is not None and not validity.keeps_stale:
        raise Permanent(
            f"{where}: a flag without `targeting` gives its default anyway, so metadata {STALE_DAYS!r} has no effect; "
            f"remove it, or set {POLICY!r} to 'keep'"
        )
