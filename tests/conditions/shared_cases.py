"""Finds the cases of condition-based campaigns beside the checkout, and reads their logs and databases by itself."""

import json
from collections.abc import Iterator
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import cantools
import zstandard

from lab.demo.oracle_signals import keep_short_names, repair_long_names
from tests import shared_data
from tests.conditions.rows import Bus, Frame, Rows

CASES = shared_data.DATA.parent / "cases"


def entries(folder: str = "conditions") -> Any:
    """Return the content of a `cases.json`.  Without the data, the list is empty."""
    path = CASES / folder / "cases.json"
    return json.loads(path.read_text()) if path.is_file() else []


def lines(path: Path) -> Iterator[str]:
    with path.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as unpacked:
        yield from TextIOWrapper(unpacked, "ascii")


@lru_cache(maxsize=1)
def frames(name: str) -> tuple[Frame, ...]:
    """Return the frames of a candump log that `cases.json` names."""
    path = (CASES.parent if name.startswith("cases/") else shared_data.DATA) / name
    return tuple(frame for line in lines(path) if (frame := _frame(line)) is not None)


def rows(entry: dict[str, Any]) -> Rows:
    return Rows(
        {
            bus: Bus(tuple(_database(shared_data.DATA / file) for file in files), bus in entry.get("pgn", ()))
            for bus, files in entry["dbc"].items()
        }
    )


@lru_cache(maxsize=8)
def _database(path: Path) -> cantools.database.Database:
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    database = cantools.database.load_string(text, "dbc", strict=False)
    assert isinstance(database, cantools.database.Database)
    for message in database.messages:
        repair_long_names(message)
        keep_short_names(message, text)
    return database


def _frame(line: str) -> Frame | None:
    stamp, bus, content = line.split()[:3]
    name, _, data = content.partition("#")
    if data.startswith("#"):  # CAN FD: a second mark and one digit of flags
        data = data[2:]
    if data.startswith("R") or int(name, 16) & 0x2000_0000:
        return None
    seconds, _, fraction = stamp.strip("()").partition(".")
    t_us = int(seconds) * 1_000_000 + int(fraction.ljust(6, "0")[:6])
    return Frame(t_us, bus, int(name, 16) & 0x1FFF_FFFF, len(name) > 3, bytes.fromhex(data))
