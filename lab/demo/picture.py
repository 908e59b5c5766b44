"""Draws `drive.png`: a few signals of the drive as they are in the lake, with the outage, the kills and the pushes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


@dataclass(frozen=True, slots=True)
class Story:
    """Holds what happened during the drive, in microseconds since the Unix epoch, on the time axis of the samples.

    `outages` holds pairs (begin, end), and `marks` pairs of a time and what happened then.
    """

    outages: Sequence[tuple[int, int]]
    marks: Sequence[tuple[int, str]]


def draw(samples: pa.Table, story: Story, title: str, path: Path) -> list[str]:
    """Draw a few signals of `samples`, the content of the lake's table, as the PNG file `path`.

    Return the names of the signals.
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
        # A campaign may keep only changes, so a value holds until the next sample.  A slope between two samples
        # would show values that the car never had.
        axis.step(mine["time"], mine["value"], ".-", where="post", linewidth=0.8, markersize=2, color=f"C{number}")
        axis.set_ylabel(units[0] if units else "")
        # The words of the marks stand above the first panel, so its title stands above them.
        heading = f"{signal}   ({bus}, {mine.num_rows:,} samples)"
        axis.set_title(heading, fontsize=9, loc="left", pad=16 if number == 0 else None)
        axis.grid(alpha=0.3)
        _tell(axis, story, with_words=number == 0)
    figure.suptitle(title, fontsize=11)
    figure.autofmt_xdate()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return [signal for _, signal in chosen]


def _tell(axis: "Axes", story: Story, *, with_words: bool) -> None:
    """Shade the outages, and draw a line for each mark, with its word at the top of the panel."""
    for start, end in story.outages:
        axis.axvspan(_time(start), _time(end), color="0.85", zorder=0)
    for at, _ in story.marks:
        axis.axvline(_time(at), color="0.35", linewidth=0.8, linestyle="--", zorder=1)
    if with_words:
        words = [(start, "no connection") for start, _ in story.outages] + list(story.marks)
        for at, what in words:
            axis.text(_time(at), 1.02, what, transform=axis.get_xaxis_transform(), fontsize=7.5, va="bottom")


def _time(us: int) -> float:
    """Return a time in microseconds as matplotlib counts times, in days since the Unix epoch."""
    return us / 86_400e6
