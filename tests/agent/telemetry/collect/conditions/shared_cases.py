"""Finds the cases of condition-based campaigns beside the checkout, with their frames and plans."""

import functools
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from agent.sources.replay import read_blocks
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.frames import FrameBlock
from can_dbc.plan import BusPlan, Match
from tests import shared_data

FOLDER = shared_data.DATA.parent / "cases" / "conditions"
Records = list[dict[str, Any]]


class Case(NamedTuple):
    """One case; `document` is the campaign, and `expected` its records."""

    name: str
    log: Path
    databases: tuple[tuple[str, tuple[Path, ...], Match], ...]
    document: dict[str, Any]
    expected: Records

    def blocks(self) -> list[FrameBlock]:
        return list(_blocks(self.log))

    def plans(self) -> dict[str, BusPlan]:
        return {bus: _plan(files, match) for bus, files, match in self.databases}


def names() -> list[str]:
    """Return the names of all cases.  Without the data, the list is empty."""
    return [entry["name"] for entry in _entries()]


def case(name: str) -> Case:
    """Return a case.  Without the data, the calling test is skipped or fails."""
    shared_data.require()
    entry = next(entry for entry in _entries() if entry["name"] == name)
    expected = zstandard.ZstdDecompressor().stream_reader((FOLDER / entry["expected"]).read_bytes()).read()
    return Case(
        name,
        _path(entry["log"]),
        tuple(
            (bus, tuple(map(_path, files)), Match.PGN if bus in entry["pgn"] else Match.EXACT)
            for bus, files in entry["dbc"].items()
        ),
        json.loads((FOLDER / entry["campaign"]).read_text()),
        [json.loads(line) for line in expected.decode().split("\n") if line],
    )


def difference(expected: Records, found: Records) -> str | None:
    """Return the first difference between records, or None.  The order of samples of one trigger does not count."""
    sides: tuple[dict[int, Records], dict[int, Records]] = (defaultdict(list), defaultdict(list))
    for records, side in zip((expected, found), sides, strict=True):
        for record in records:
            side[record["n"]].append(record)
    for n in sorted(sides[0].keys() | sides[1].keys()):
        left, right = (sorted(side[n], key=_key) for side in sides)
        for one, other in zip(left, right, strict=False):
            if _key(one) != _key(other) or not _same(one.get("value"), other.get("value")):
                return f"trigger {n}: expected {one}, found {other}"
        if len(left) != len(right):
            return f"trigger {n}: expected {len(left)} records, found {len(right)}"
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return bool(one == other)


def _key(record: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in sorted(record.items()) if key != "value"})


def _entries() -> list[dict[str, Any]]:
    if not FOLDER.is_dir():
        # A test that asks for one case by name says that the data are missing.
        assert os.environ.get("REQUIRE_SHARED") != "1", f"there are no cases in {FOLDER}"
        return []
    entries: list[dict[str, Any]] = msgspec.json.decode((FOLDER / "cases.json").read_bytes())
    return entries


def _path(name: str) -> Path:
    return (FOLDER.parents[1] if name.startswith("cases/") else shared_data.DATA) / name


def plan_of(files: list[str]) -> BusPlan:
    """Return the plan of a bus with these databases, which are matched by their whole identifiers."""
    return _plan(tuple(map(_path, files)), Match.EXACT)


@functools.cache
def _plan(files: tuple[Path, ...], match: Match) -> BusPlan:
    return compile_plan([load(file) for file in files], match)


@functools.lru_cache(maxsize=1)
def _blocks(log: Path) -> tuple[FrameBlock, ...]:
    blocks = list(read_blocks(log))
    buses = max((block.buses for block in blocks), key=len)
    return tuple(FrameBlock(b.t_ns, b.bus, b.can_id, b.flags, b.length, b.data, buses, b.first) for b in blocks)
