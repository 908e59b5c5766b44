"""Numbers the signal tables of a vehicle: the messages of its bus plans, its sources of values, its VSS paths.

This file is pure.  The collector and its consumers refer to signals by these numbers.  No other file turns decoded
columns into signal blocks.
"""

from collections.abc import Iterable, Mapping, Sequence

from agent.formats.down.mapping.entries import VssMapping
from agent.formats.up.columns import SignalInfo
from agent.formats.up.limits import MAX_LABEL_CHARS, MAX_TEXT_CHARS, shortened
from agent.formats.up.signals import SignalBlock, SignalTable
from agent.telemetry.collect.mapped_path import mapped_paths
from agent.telemetry.collect.names import SignalNames
from can_dbc.decoder import Decoder, SignalColumns
from can_dbc.plan import BusPlan, Match, MessagePlan

Wants = Mapping[int, tuple[int, ...]]
"""The indices of the wanted signals, ascending, by number of their signal table."""

_Key = tuple[int, int, bool, int]


def all_wants(wants: Iterable[Wants]) -> Wants:
    """Return the union of `wants`."""
    union: dict[int, set[int]] = {}
    for each in wants:
        for table, signals in each.items():
            union.setdefault(table, set()).update(signals)
    return {table: tuple(sorted(signals)) for table, signals in union.items()}


class SignalTables:
    """Holds the signal tables in the order of windows: by bus, then by identifier, then `values`, then VSS paths.

    `buses` has the names of all buses of all sources.  Frames refer to a bus by its index in `buses`.  `plans` maps the
    name of a bus to its plan; a bus may have no plan.  A mapping is for one bus, or for all buses if the bus is None.
    """

    def __init__(
        self,
        buses: Sequence[str],
        plans: Mapping[str, BusPlan],
        values: Sequence[SignalTable] = (),
        mappings: Sequence[tuple[str | None, VssMapping]] = (),
    ) -> None:
        self.buses = tuple(buses)
        self._plans = {number: plans[bus] for number, bus in enumerate(self.buses) if bus in plans}
        tables: list[SignalTable] = []
        self._numbers: dict[_Key, int] = {}
        for bus, plan in self._plans.items():
            keyed = {_key(bus, message): message for message in plan.with_contained}
            for key in sorted(keyed):
                self._numbers[key] = len(tables)
                tables.append(_table(keyed[key], self.buses[bus]))
        self.by_sender = frozenset(
            number
            for (bus, *_, extended, _), number in self._numbers.items()
            if extended and self._plans[bus].match is Match.PGN
        )
        """The numbers of the tables whose samples come separately for each J1939 sender."""
        self.first_of_values = len(tables)
        """The number of the first table of `values`."""
        self.tables: tuple[SignalTable, ...] = (*tables, *values)
        self.names = SignalNames(self.tables)
        paths, self.mapping_notes = mapped_paths(mappings, self.tables, self.names)
        self.mapped = dict(enumerate(paths, len(self.tables)))
        """The VSS paths that can be collected, by the numbers of their signal tables."""
        if paths:
            self.tables += tuple(SignalTable(path.entry.path, (path.described,)) for path in paths)
            self.names = SignalNames(self.tables, first_of_paths=min(self.mapped))

    def decoder(self, wants: Wants) -> Decoder:
        """Make a decoder for the wanted signals of messages."""

        def of_message(bus: int, message: MessagePlan) -> tuple[int, ...]:
            return wants.get(self._numbers[_key(bus, message)], ())

        return Decoder(self._plans, of_message)

    def blocks(self, columns: Iterable[SignalColumns]) -> list[SignalBlock]:
        """Return decoded columns as signal blocks.  The arrays are shared, not copied."""
        numbers = self._numbers
        found = []
        for decoded in columns:
            message = decoded.message
            header = -1 if message.header_id is None else message.header_id
            found.append(
                SignalBlock(
                    numbers[decoded.bus, message.can_id, message.extended, header],
                    decoded.t_ns,
                    decoded.signals,
                    decoded.raw,
                    decoded.valid,
                    decoded.source_address,
                    decoded.rows,
                )
            )
        return found


def _key(bus: int, message: MessagePlan) -> _Key:
    """Return the key of a message.  It includes the header id, because messages in a container share one identifier."""
    return bus, message.can_id, message.extended, -1 if message.header_id is None else message.header_id


def _table(message: MessagePlan, bus: str) -> SignalTable:
    return SignalTable(
        message.name,
        tuple(
            (
                SignalInfo(f"{message.name}.{s.name}", bus, _unit(s.unit), s.kind, s.bits, s.scale, s.offset),
                _texts(s.texts),
            )
            for s in message.signals
        ),
        tuple((s.minimum, s.maximum) for s in message.signals),
    )


def _unit(unit: str | None) -> str | None:
    return None if unit is None else shortened(unit, MAX_LABEL_CHARS)


def _texts(texts: Mapping[int, str]) -> Mapping[int, str]:
    if all(len(text) <= MAX_TEXT_CHARS for text in texts.values()):
        return texts
    return {raw: shortened(text, MAX_TEXT_CHARS) for raw, text in texts.items()}
