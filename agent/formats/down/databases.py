"""Say which of the pushed databases (`dbc/<bus>/<file>`) each bus uses.  Pure.

If a pushed `settings.toml` has a table for the bus, the table names the databases in their order, the match and the
encodings.  Otherwise the bus uses all its pushed databases in the order of their names, with the match that the
vehicle's own file has for the bus.  Either way they take the place of the vehicle's own databases of that bus.  A bus
without pushed databases keeps its own.

Only DBC files can be pushed.  ARXML, KCD and SYM files need cantools, which must not run on input from outside: it has
no bound on memory, and the confined process that compiles pushed databases could not import it in time.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from agent.errors import Permanent
from agent.settings.remote import FILE, NAME, RemoteSettings

DOCUMENT_BYTES: Final = 16_000_000
"""The size limit of one database.

Three times a large database of a vehicle (5 MB, 6,000 messages).  Compiling 5 MB takes 110 MB of memory.
"""


class PushedDatabase(msgspec.Struct, frozen=True):
    """Holds one database: the path of its target, its content, and the encoding of its texts if the fleet names one."""

    path: str
    content: bytes
    encoding: str | None


class PushedBus(msgspec.Struct, frozen=True):
    """Holds the databases of one bus; an earlier one takes precedence.

    `match` is None if the vehicle's own file decides.
    """

    bus: str
    databases: tuple[PushedDatabase, ...]
    match: Literal["exact", "pgn"] | None

    @property
    def source(self) -> str:
        """Return the paths of the databases, for messages."""
        return ", ".join(database.path for database in self.databases)


def parse_database(content: bytes, source: str) -> bytes:
    """Return `content`, which is parsed later, in a process of its own.  Raises: Permanent if it is empty."""
    if not content.strip():
        raise Permanent(f"{source}: the database is empty; publish a DBC file")
    return content


def name_of_file(file: str) -> str:
    """Return the name `<bus>/<file>` of a database from the path of its file, whose folder has the name of the bus.

    Raises: Permanent if the file has another suffix, or if a name has a character that a path of a target cannot have.
    """
    *folders, name = file.split("/")
    bus = folders[-1] if folders else ""
    if FILE.fullmatch(name) is None:
        raise Permanent(
            f"{file}: only DBC files can be pushed, and their names may have only letters, digits, '_', '-' and '.'; "
            "rename or convert the file"
        )
    if NAME.fullmatch(bus) is None:
        raise Permanent(
            f"{file}: the folder of a database must have the name of its bus; copy the file to can0/{name}, for example"
        )
    return f"{bus}/{name}"


def pushed_buses(contents: Mapping[str, bytes], settings: Iterable[tuple[str, RemoteSettings]]) -> list[PushedBus]:
    """Return the databases of each bus that has pushed ones, in the order of the names of buses.

    `contents` has all pushed databases by path.  `settings` are the sources and values of the pushed settings.

    Raises: Permanent if a table and the databases of its bus do not fit together.
    """
    of_bus: dict[str, dict[str, bytes]] = {}
    for path, content in sorted(contents.items()):
        _, bus, file = path.split("/")
        of_bus.setdefault(bus, {})[file] = content
    tables = {bus: (source, table) for source, each in settings for bus, table in each.buses.items()}
    found = []
    for bus in sorted({*of_bus, *tables}):
        files = of_bus.get(bus, {})
        if bus not in tables:
            databases = [PushedDatabase(f"dbc/{bus}/{file}", content, None) for file, content in files.items()]
            found.append(PushedBus(bus, tuple(databases), None))
            continue
        source, table = tables[bus]
        named = table.databases
        missing = [each.file for each in named if each.file not in files]
        if missing:
            raise Permanent(
                f"{source}: bus.{bus}.dbc names {missing[0]}, but dbc/{bus}/{missing[0]} is not published for this "
                "vehicle; publish it, or correct the name"
            )
        unused = sorted(files.keys() - {each.file for each in named})
        if unused:
            raise Permanent(
                f"dbc/{bus}/{unused[0]}: bus.{bus}.dbc in {source} does not name this database, so the bus would not "
                "use it; name it there, or withdraw it"
            )
        databases = [PushedDatabase(f"dbc/{bus}/{each.file}", files[each.file], each.encoding) for each in named]
        found.append(PushedBus(bus, tuple(databases), table.match))
    return found
