"""Draws the signals of a condition-based campaign over a recorded drive, with a line at each trigger."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.commands.estimate import Drive
from agent.errors import Permanent
from agent.formats.down.campaign import Campaign, names_in
from agent.formats.down.conditions.tree import variables
from agent.telemetry.collect.conditions.collections import Collection
from agent.telemetry.collect.names import Place
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.values import physical

PANELS: Final = 4
Line = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Times (n,) in nanoseconds since the Unix epoch, and values (n,)."""


def draw(campaign: Campaign, collections: Sequence[Collection], tables: SignalTables, drive: Drive, path: Path) -> None:
    """Write a PNG file with up to PANELS signals of the campaign; those that its condition names come first.

    The time from a trigger to the end of its collection is shaded.  Raises: Permanent if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise Permanent("--picture needs matplotlib; install it with: pip install matplotlib") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = _lines(_chosen(campaign, tables), tables, drive)
    figure, axes = plt.subplots(max(len(lines), 1), 1, sharex=True, squeeze=False, figsize=(11, 2.2 * PANELS))
    for number, (place, (t_ns, values)) in enumerate(lines.items()):
        info, _ = tables.tables[place.table].signals[place.signal]
        axis = axes[number, 0]
        # A value holds until the next sample.  A slope would show values that the car never had.
        axis.step(_dates(t_ns), values, where="post", linewidth=0.8, color=f"C{number}")
        axis.set_title(f"{info.name}   ({info.bus}, {len(t_ns):,} samples)", fontsize=9, loc="left")
        axis.set_ylabel(info.unit or "")
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        for collection in collections:
            start, end = _dates(np.array([collection.trigger.t_ns, collection.trigger.until_ns]))
            axis.axvspan(start, end, color="C3", alpha=0.15, zorder=0)
            axis.axvline(start, color="C3", linewidth=0.8, linestyle="--", zorder=1)
    figure.suptitle(f"{campaign.name}: {len(collections)} triggers on {drive.path.name}", fontsize=11)
    figure.autofmt_xdate()
    figure.tight_layout()
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _chosen(campaign: Campaign, tables: SignalTables) -> list[Place]:
    """Return the signals to draw."""
    assert campaign.condition is not None
    asked = dict.fromkeys([*variables(campaign.condition.tree), *names_in(campaign)])
    found = [place for name in asked for place in tables.names.find(name) or tables.names.find_matching(name)]
    return list(dict.fromkeys(found))[:PANELS]


def _lines(places: Sequence[Place], tables: SignalTables, drive: Drive) -> Mapping[Place, Line]:
    wants: dict[int, tuple[int, ...]] = {}
    for place in places:
        wants[place.table] = (*wants.get(place.table, ()), place.signal)
    decoder = tables.decoder({table: tuple(sorted(signals)) for table, signals in wants.items()})
    parts: dict[Place, list[Line]] = {place: [] for place in places}
    for frames in drive.blocks():
        for block in tables.blocks(decoder.decode(frames).columns):
            for row, signal in enumerate(block.signals):
                place = Place(block.table, signal)
                shown = slice(None) if block.valid is None else block.valid[row]
                info, _ = tables.tables[block.table].signals[signal]
                parts[place].append((block.t_ns[shown], physical(info, block.raw[row][shown])))
    return {
        place: (np.concatenate([t for t, _ in found]), np.concatenate([v for _, v in found]))
        for place, found in parts.items()
        if found
    }


def _dates(t_ns: NDArray[np.int64]) -> list[datetime]:
    return [datetime.fromtimestamp(each / 1e9, UTC) for each in t_ns.tolist()]
