"""Lists every question of `fleet query` and ten questions in SQL, each with the rows that are right.

The right rows come from the files of the lake (`delta_log`), by plain Python.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tests.queries.delta_log import read_rows

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
TABLES = ("samples", "events", "batches")
MANY = ("--limit", "1000000")


@dataclass(frozen=True)
class Question:
    """A question as the arguments of `fleet query`, and a function that says whether an answer is right."""

    arguments: tuple[str, ...]
    is_right: Callable[[Rows], bool]

    def __str__(self) -> str:
        return " ".join(self.arguments)


def questions_about(lake: Path) -> list[Question]:
    """Return all questions about a lake that has samples, events and batches."""
    tables = {name: read_rows(lake / name) for name in TABLES}
    return [*_named(tables), *_in_sql(tables)]


def _named(tables: Mapping[str, Rows]) -> Iterable[Question]:
    samples, events, batches = (tables[name] for name in TABLES)
    newest = sorted(samples, key=lambda row: (row["time"], row["seq"], row["row"]), reverse=True)[:20]
    yield Question(("samples", "--limit", "20"), _same(newest))
    yield Question(("samples", "--corrected", "--limit", "20"), lambda found: len(found) == min(20, len(samples)))
    yield Question(("signals", *MANY), _same(_signals(samples)))
    yield Question(("latest", *MANY), _same(_latest(samples)))
    yield Question(("events", *MANY), _same(events, ordered=False))
    totals: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in batches:
        totals[row["vehicle"], row["epoch"]].append(row)
    counted = [
        {"vehicle": vehicle, "epoch": epoch, "batches": len(rows), "samples": sum(row["samples"] for row in rows)}
        for (vehicle, epoch), rows in totals.items()
    ]
    yield Question(("batches", *MANY), _same(counted, ordered=False))
    evaluated = [
        {"day": row["time"].date().isoformat(), **json.loads(row["fields"])}
        for row in events
        if row["kind"] == "toggle_evaluations"
    ]
    pairs = Counter[tuple[str, ...]]()
    for each in evaluated:
        pairs[each["day"], each["toggle"], each["variant"]] += each["evaluations"]
    sums = [
        {"day": day, "toggle": toggle, "variant": variant, "evaluations": count}
        for (day, toggle, variant), count in pairs.items()
    ]
    yield Question(("toggles", *MANY), _same(sums, ordered=False))
    stored = {(row["vehicle"], row["epoch"], row["seq"]) for row in batches}
    reasons = {json.loads(row["fields"])["reason"] for row in events if row["kind"] == "loss"}

    def explains(found: Rows) -> bool:
        numbers = [
            (row["vehicle"], row["epoch"], seq)
            for row in found
            if row["state"] == "stored"
            for seq in range(row["first_seq"], row["last_seq"] + 1)
        ]
        return Counter(numbers) == Counter(stored) and _reasons(found) == reasons

    yield Question(("ledger", *MANY), explains)
    yield Question(("losses", *MANY), lambda found: _reasons(found) == reasons)


def _reasons(found: Rows) -> set[str]:
    return {row["reason"] for row in found if row["state"] == "lost"}


def _in_sql(tables: Mapping[str, Rows]) -> Iterable[Question]:
    samples, events, batches = (tables[name] for name in TABLES)
    first = min(row["signal"] for row in samples)
    of_first = [row for row in samples if row["signal"] == first]
    middle = sorted(row["value"] for row in samples)[len(samples) // 2]
    above = [row for row in samples if row["value"] > middle]
    live = {row["digest"] for row in batches if row["lane"] == "live"}
    vehicle = samples[0]["vehicle"]
    times = [row["time"] for row in samples if row["vehicle"] == vehicle]
    per_day = Counter(row["date"] for row in samples)
    averages = _averages(samples)
    campaigns = sorted({row["campaign"] for row in samples})
    yield _sql("select * from samples limit 3", _some(samples, 3))
    yield _sql("select * from events limit 2", _some(events, 2))
    yield _sql("from batches limit 1", _some(batches, 1))
    yield _sql(f"select * from samples where value > {middle!r} limit 5", _some(above, 5))
    yield _sql("select count(*) as n from samples", _same([{"n": len(samples)}]))
    yield _sql(
        f"select time, value from samples where signal = '{first}' order by time, seq, row limit 10",
        _same(sorted(of_first, key=lambda row: (row["time"], row["seq"], row["row"]))[:10], ("time", "value")),
    )
    yield _sql("select signal, avg(value) as mean from samples group by signal order by signal", _same(averages))
    yield _sql(
        "select date, count(*) as n from samples group by date order by date",
        _same([{"date": day, "n": count} for day, count in sorted(per_day.items())]),
    )
    yield _sql(
        "select count(*) as n from samples join batches using (vehicle, epoch, seq, digest) where lane = 'live'",
        _same([{"n": sum(row["digest"] in live for row in samples)}]),
    )
    yield _sql(
        f"select min(time) as a, max(time) as b from samples where vehicle = '{vehicle}'",
        _same([{"a": min(times), "b": max(times)}]),
    )
    yield _sql(
        "select distinct campaign from samples order by campaign", _same([{"campaign": name} for name in campaigns])
    )


def _sql(sql: str, is_right: Callable[[Rows], bool]) -> Question:
    return Question(("sql", sql), is_right)


def _same(right: Iterable[Row], columns: Iterable[str] = (), *, ordered: bool = True) -> Callable[[Rows], bool]:
    """Compare rows in the columns that both sides have."""
    wanted, only = [*right], {*columns}

    def is_right(found: Rows) -> bool:
        common = {*wanted[0]} & {*(found[0] if found else ())}
        names = sorted(common & only if only else common)
        there, here = ([tuple(_plain(row[name]) for name in names) for row in rows] for rows in (wanted, found))
        return bool(names) and (there == here if ordered else Counter(there) == Counter(here))

    return is_right


def _some(rows: Rows, count: int) -> Callable[[Rows], bool]:
    """Say whether an answer has `count` different rows, all of which are in `rows` with all columns."""

    def is_right(found: Rows) -> bool:
        there = {tuple((name, _plain(row[name])) for name in sorted(row)) for row in rows}
        here = {tuple((name, _plain(row[name])) for name in sorted(row)) for row in found}
        return len(here) == min(count, len(rows)) and here <= there

    return is_right


def _plain(value: Any) -> Any:
    """Return a value of either side in one form: times as datetime, days as date, other numbers with nine digits."""
    if isinstance(value, str) and value[:2] in {"19", "20"} and value[4:5] == "-":
        return datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _signals(samples: Rows) -> Rows:
    groups: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in samples:
        groups[row["bus"], row["signal"]].append(row)
    found: Rows = []
    for (bus, signal), rows in sorted(groups.items()):
        values, times = [row["value"] for row in rows], [row["time"] for row in rows]
        found.append({"bus": bus, "signal": signal, "samples": len(rows), "min": min(values), "max": max(values)})
        found[-1] |= {"first": min(times), "last": max(times), "vehicles": len({row["vehicle"] for row in rows})}
    return found


def _latest(samples: Rows) -> Rows:
    found: dict[tuple[Any, ...], Row] = {}
    for row in samples:
        key = row["vehicle"], row["bus"], row["signal"], -1 if row["source_address"] is None else row["source_address"]
        place = row["time"], row["seq"], row["row"]
        if key not in found or place > (found[key]["time"], found[key]["seq"], found[key]["row"]):
            found[key] = row
    names = ("vehicle", "bus", "signal", "time", "value", "text")
    return [{name: row[name] for name in names} for _, row in sorted(found.items())]


def _averages(samples: Rows) -> Rows:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in samples:
        values[row["signal"]].append(row["value"])
    return [{"signal": name, "mean": sum(found) / len(found)} for name, found in sorted(values.items())]
