"""Finds the signals that a name means, and suggests names for misspelt ones.

This file is pure.  No other file interprets the names of signals.

A name is, in this order of precedence:

1. `Message.Signal`, spelt exactly as in the databases or by a source of values;
2. a VSS path of a mapping;
3. FleetWise's `Vehicle.<Message>.<Signal>`, which means `<Message>.<Signal>`;
4. a glob of fnmatch (`*`, `?`, `[a-z]`, case-sensitive), where the caller allows globs.  A signal is meant if the glob
   matches its `Message.Signal` or its `Vehicle.Message.Signal`.  A VSS path is meant only by a glob that begins with
   the root and the beginning of a branch, as `Vehicle.Cabin.*` does, so `*` collects no signal under two names.

One name may mean several signals, because two buses may have a message of the same name.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from typing import Final, NamedTuple

from agent.formats.up.columns import SignalInfo
from agent.formats.up.signals import SignalTable

_GLOB_CHARACTERS: Final = frozenset("*?[")
_ROOT: Final = "Vehicle."  # root of FleetWise's signal catalogues and of VSS
_ROOT_BEGINS: Final = "V*?["


class Place(NamedTuple):
    """The place of a signal: the number of its signal table, and its index in that table."""

    table: int
    signal: int


def is_glob(name: str) -> bool:
    """Return whether `name` is a glob."""
    return not _GLOB_CHARACTERS.isdisjoint(name)


class SignalNames:
    """Finds the signals of `tables` by any of their names.

    The tables from number `first_of_paths` on are VSS paths; without it, none is.
    """

    def __init__(self, tables: Sequence[SignalTable], first_of_paths: int | None = None) -> None:
        places: dict[str, list[Place]] = {}
        for number, table in enumerate(tables):
            for index, (info, _) in enumerate(table.signals):
                places.setdefault(info.name, []).append(Place(number, index))
        self._places = {name: tuple(found) for name, found in places.items()}
        self._first_of_paths = len(tables) if first_of_paths is None else first_of_paths
        self._tables = tables

    def find(self, name: str) -> tuple[Place, ...]:
        """Return the signals that `name` means, in order of tables, or an empty tuple.  Globs are not tried."""
        return self._places.get(name) or self._places.get(name.removeprefix(_ROOT), ())

    def find_matching(self, pattern: str) -> tuple[Place, ...]:
        """Return the signals that the glob means, in order of tables."""
        matches = re.compile(translate(pattern)).match
        # Most globs begin with the name of a message, and cannot match a name with the prefix.
        roots = ("", _ROOT) if pattern[:1] in _ROOT_BEGINS else ("",)
        literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        means_paths = literal.startswith(_ROOT) and literal != _ROOT
        return tuple(
            sorted(
                place
                for name, places in self._places.items()
                for place in places
                if (
                    any(matches(root + name) for root in roots)
                    if place.table < self._first_of_paths
                    else means_paths and matches(name)
                )
            )
        )

    def find_bare(self, name: str, bus: str | None = None) -> tuple[Place, ...]:
        """Return the signals that `Message.Signal`, or `Signal` of any message, means on `bus`, or on any bus."""
        found: Iterable[Place] = self._places.get(name, ()) or self._by_signal.get(name, ())
        return tuple(sorted(place for place in found if bus is None or self._info(place).bus == bus))

    def suggest_bare(self, name: str) -> str | None:
        """Return the known `Signal` or `Message.Signal` that is most similar to `name`, or None."""
        return _nearest(name, (*self._places, *self._by_signal))

    @functools.cached_property
    def _by_signal(self) -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for places in self._places.values():
            for place in places:
                if place.table >= self._first_of_paths:
                    continue
                found.setdefault(self._info(place).name.rpartition(".")[2], []).append(place)
        return found

    def _info(self, place: Place) -> SignalInfo:
        return self._tables[place.table].signals[place.signal][0]

    def knows(self, name: str) -> bool:
        """Return whether `name`, which may be a glob, means any signal."""
        return bool(self.find(name) or (is_glob(name) and self.find_matching(name)))

    def suggest(self, name: str) -> str | None:
        """Return the known name that is most similar to `name`, ignoring case, or None if no name is similar."""
        return _nearest(name, self._places)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    by_lower = {each.lower(): each for each in known}
    spelt = name.lower()
    for wanted in (spelt, spelt.removeprefix(_ROOT.lower())):
        for near in difflib.get_close_matches(wanted, by_lower, n=1):
            return by_lower[near]
    return None
