"""Draws `drive.png`: a few signals of the drive as they are in the lake, with the outage shaded."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import pyarrow as pa
import pyarrow.compute as pc

PREFERRED = ("VehicleSpeed", "EngineSpeed", "EngineRPM", "Steering", "StateOfCharge", "Brake", "Coolant", "Speed")
"""Words in the names of the most interesting signals of a drive.  Earlier words are preferred."""

PANELS = 4


def choose_signals(samples: pa.Table) -> list[tuple[str, str]]:
    """Return up to PANELS pairs (bus, signal) to draw.

    A signal belongs to the first word of PREFERRED that its name contains.  From the signals of each word, the one with
    the most distinct values is chosen.  Signals without such a word fill the remaining panels.  Of them, too, the ones
    with the most distinct values come first.
    """
    stats = samples.group_by(["bus", "signal"]).aggregate(
        [("value", "count"), ("value", "count_distinct"), ("value", "min"), ("value", "max")]
    )
    rows = [
        row
        for row in stats.to_pylist()
        if row["value_count"] >= 10 and row["value_max"] > row["value_min"] and abs(row["value_max"]) < 1e12
    ]

    def rank(row: dict[str, object]) -> tuple[int, int]:
        name = str(row["signal"]).lower()
        wanted = [number for number, word in enumerate(PREFERRED) if word.lower() in name]
        return (wanted[0] if wanted else len(PREFERRED), -int(str(row["value_count_distinct"])))

    chosen: list[tuple[str, str]] = []
    words: set[int] = set()
    for row in sorted(rows, key=rank):
        word = rank(row)[0]
        if word < len(PREFERRED) and word in words:
            continue
        words.add(word)
        chosen.append((row["bus"], row["signal"]))
    return chosen[:PANELS]


def draw(samples: pa.Table, outage_us: Sequence[tuple[int, int]], title: str, path: Path) -> list[str]:
    """Draw a few signals of `samples`, the content of the lake's table, as the PNG file `path`.

    Return the names of the signals.  `outage_us` holds pairs (begin, end) of spans to shade.  Their times are in
    microseconds since the Unix epoch, on the time axis of the samples.
    """
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  (the backend must be chosen before)

    chosen = choose_signals(samples)
    figure, axes = plt.subplots(max(len(chosen), 1), 1, sharex=True, squeeze=False, figsize=(11, 2.2 * PANELS))
    for number, (bus, signal) in enumerate(chosen):
        axis = axes[number, 0]
        mine = samples.filter(pc.and_(pc.equal(samples["signal"], signal), pc.equal(samples["bus"], bus)))
        mine = mine.sort_by("time")
        units = [unit for unit in pc.unique(mine["unit"]).to_pylist() if unit]
        axis.plot(
            mine["time"].to_numpy(), mine["value"].to_numpy(), ".-", linewidth=0.8, markersize=2, color=f"C{number}"
        )
        axis.set_ylabel(units[0] if units else "")
        axis.set_title(f"{signal}   ({bus}, {mine.num_rows:,} samples)", fontsize=9, loc="left")
        axis.grid(alpha=0.3)
        for start, end in outage_us:
            axis.axvspan(_time(start), _time(end), color="0.85", zorder=0, label="no connection")
    if outage_us and chosen:
        axes[0, 0].legend(loc="upper right", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.autofmt_xdate()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return [signal for _, signal in chosen]


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC).replace(tzinfo=None)
