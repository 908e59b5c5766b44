"""Names a database file, and perhaps one bus of it, as in `car.kcd#Body`.  Pure.

KCD files and ARXML system descriptions may describe several buses, and one identifier may mean a different message on
each of them.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from can_dbc.errors import DatabaseError
from can_dbc.plan import MessagePlan

FORMATS: Final = ("dbc", "arxml", "kcd", "sym")
_FILE_AND_BUS: Final = re.compile(rf"(?P<file>.+?\.({'|'.join(FORMATS)}))#(?P<bus>.+)", re.IGNORECASE | re.DOTALL)


def file_and_bus(path: Path) -> tuple[Path, str | None]:
    """Return the file and the bus that `path` names.  `car.kcd#Body` is the bus Body of car.kcd.

    Without a bus, the second value is None.  A path that itself ends in the suffix of a format names no bus.
    """
    if path.suffix[1:].lower() in FORMATS:
        return path, None
    chosen = _FILE_AND_BUS.fullmatch(str(path))
    return (path, None) if chosen is None else (Path(chosen["file"]), chosen["bus"])


def refuse_two_meanings(first: MessagePlan, bus: str | None, second: MessagePlan, other: str | None) -> None:
    """Check that messages of two buses of one file, which match the same frames, are equal.

    Raises: DatabaseError if they differ.
    """
    if replace(second, can_id=first.can_id) != first:
        raise DatabaseError(
            f"{first.name} of the bus {bus} and {second.name} of the bus {other} match the same frames, but the "
            f"database is used for one bus only; choose one of its buses by name, as in FILE#{other}"
        )
