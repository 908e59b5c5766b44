"""Reads the databases of `decode`, and compiles them for the buses that appear in a log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Permanent
from can_dbc.compile import compile_plan
from can_dbc.database import load, needs_encoding
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError
from can_dbc.plan import BusPlan, Match
from can_dbc.values import WORD_BITS


@dataclass(frozen=True, slots=True)
class DatabaseReading:
    """Says how databases are read.

    `match` says how messages are found.  `encodings` are those that the user named; the key None stands for every file
    that does not name its encoding.  If `strict`, a database with notes is refused.
    """

    match: Match = Match.EXACT
    encodings: Mapping[Path | None, str] = field(default_factory=dict)
    strict: bool = False

    def encoding_of(self, path: Path) -> str | None:
        """Return the encoding that the user named for the database `path`, or None."""
        return self.encodings.get(path, self.encodings.get(None) if needs_encoding(path) else None)


class LogPlans:
    """Makes the decoder for the buses of a log, and makes a new decoder when another bus appears.

    Notes about the databases are added to the list `notes`.
    """

    def __init__(
        self, databases: Mapping[str | None, Sequence[Path]], reading: DatabaseReading, notes: list[str]
    ) -> None:
        """Load all databases.  The keys of `databases` are buses; None stands for every bus.

        Raises: Permanent if a database cannot be read, or if `reading` has an encoding for a file that is not a
        database.
        """
        self._databases, self._reading, self._notes = databases, reading, notes
        known = {path for paths in databases.values() for path in paths}
        for path in reading.encodings:
            if path is not None and path not in known:
                raise Permanent(
                    f"--encoding {path}: this file is not a database of --dbc; write its path as --dbc does"
                )
        try:
            self._loaded = {path: load(path, reading.encoding_of(path)) for path in sorted(known)}
        except DatabaseError as error:
            raise Permanent(str(error)) from error
        self.have_unsigned_64 = any(
            signal.length == WORD_BITS and not signal.is_signed and not signal.is_float
            for database in self._loaded.values()
            for message in database.messages
            for signals in (message.signals, *(inner.signals for inner in message.contained_messages))
            for signal in signals
        )
        """Whether a signal has unsigned raw values of 64 bits.

        Parquet fixes the type of a column before the first row, so the type follows from the databases, not from the
        samples.
        """
        self._buses: tuple[str, ...] = ()
        self._plans: dict[int, BusPlan] = {}
        self._decoder = Decoder({})

    def of(self, buses: Sequence[str]) -> dict[str, BusPlan]:
        """Return the plans of `buses`, which are all buses of the log.

        Raises: Permanent, as `decoder` does.
        """
        self._buses = tuple(buses)
        return {bus: self._compiled(bus) for bus in buses}

    def decoder(self, buses: tuple[str, ...]) -> Decoder:
        """Return the decoder for frames of `buses`, the buses of the log that have appeared so far.

        Raises: Permanent if the databases for a bus cannot be compiled together, or are read strictly and have notes.
        """
        # New buses appear while a log is read.  They are added at the end of `buses`, so known numbers stay valid.
        if buses != self._buses:
            for number in range(len(self._buses), len(buses)):
                self._plans[number] = self._compiled(buses[number])
            self._buses, self._decoder = buses, Decoder(self._plans)
        return self._decoder

    def _compiled(self, bus: str) -> BusPlan:
        # The first database that has an identifier is used, so databases of this bus come before those of all buses.
        paths = [*self._databases.get(bus, ()), *self._databases.get(None, ())]
        try:
            plan = compile_plan([self._loaded[path] for path in paths], self._reading.match)
        except DatabaseError as error:
            raise Permanent(f"{', '.join(map(str, paths))}: {error}") from error
        if self._reading.strict and plan.notes:
            raise Permanent(
                f"--strict: the databases of {bus} have {len(plan.notes)} mistakes; correct them:\n"
                + "\n".join(plan.notes)
            )
        self._notes.extend(f"{bus}: {note}" for note in plan.notes)
        return plan

    def refuse_silence(self, log: Path, decoded: int) -> None:
        """Check that at least one database applies to a bus of the log.

        Raises: Permanent if every database is given for a certain bus, but the log has none of these buses.
        """
        if decoded or not self._databases or None in self._databases or set(self._databases) & set(self._buses):
            return
        named, found = ", ".join(map(str, self._databases)), ", ".join(self._buses)
        raise Permanent(
            f"{log}: the log has no frame on bus {named}; its buses are {found}: name one of these with --dbc BUS=FILE"
        )

    def note_silent_buses(self) -> None:
        """Add a note for each bus that has a database but no frame in the log.  The name of the bus may be misspelt."""
        silent = [bus for bus in self._databases if bus is not None and bus not in self._buses]
        self._notes.extend(
            f"{bus}: this bus has a database, but the log has no frame of it; check the name" for bus in silent
        )
