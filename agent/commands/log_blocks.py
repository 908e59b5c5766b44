"""Reads the blocks of a recorded log for commands that decode it, with a progress bar, notes and a lost end."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

from tqdm import tqdm

from agent.sources.logs import Truncated
from agent.sources.replay import read_blocks
from can_dbc.frames import FrameBlock

_BLOCK_FRAMES: Final = 32_768
"""The number of frames that are decoded together.  Their samples, some hundred thousand, become one row group of the
Parquet file.  Readers of Parquet handle row groups of this size well."""


class Summary(Protocol):
    """What is told of a log: the frames so far, notes, and what is missing at its end (empty for a whole log)."""

    frames: int
    notes: list[str]
    truncated: str


def whole_blocks(
    log: Path, buses: Sequence[str] | None, zone: str, summary: Summary, *, progress: bool
) -> Iterator[FrameBlock]:
    """Yield the blocks of the log.  If its end is missing, set `summary.truncated` after the last whole frame.

    The caller counts the frames.  `progress` shows a progress bar on a terminal.

    Raises: Truncated if the end is missing and there is no whole frame.
    """
    with _Bar(log, shown=progress) as bar:
        try:
            yield from read_blocks(
                log, channels=buses, block_frames=_BLOCK_FRAMES, progress=bar.at, tell=summary.notes.append, zone=zone
            )
        except Truncated as error:
            if not summary.frames:
                raise
            summary.truncated = str(error)


def buses_of(log: Path, zone: str) -> tuple[str, ...]:
    """Return the buses of a log, whose end may be missing.  Raises: Truncated if there is no whole frame."""
    buses: tuple[str, ...] = ()
    try:
        for block in read_blocks(log, zone=zone):
            buses = block.buses
    except Truncated:
        if not buses:
            raise
    return buses


class _Bar:
    """A progress bar that counts bytes of the log."""

    def __init__(self, log: Path, *, shown: bool) -> None:
        # `disable=None` makes tqdm draw on a terminal only.
        self._bar = tqdm(
            desc=log.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None if shown else True, leave=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def at(self, position_bytes: int, size_bytes: int) -> None:
        self._bar.total = size_bytes
        self._bar.update(position_bytes - self._bar.n)
