"""Signal tables and signal blocks: decoded values on their way from a source to the consumers.  Pure.

A signal table names signals that come together.  A message of a bus plan is one kind of signal table; a source of
values that are not CAN frames (GNSS, diagnostics) brings its own.  A signal block holds samples of one table as
columns.  Behind the collector nothing tells the two kinds apart.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.formats.up.columns import Described, SignalInfo
from can_dbc.values import Kind


@dataclass(frozen=True, slots=True)
class SignalTable:
    """Signals that come together, such as those of one message: what they are called and what their values mean.

    `signals` holds a description and a value table for each.  Their names are "<name of the table>.<signal>"; their
    `bus` is the channel, or the name of the source.
    """

    name: str
    signals: tuple[Described, ...]


class SignalBlock(msgspec.Struct, frozen=True, eq=False):
    """Samples of one signal table as columns, in the order of their source; where senders are told apart, of one.

    `table`: number of the signal table among those of its source, or of the collector once it was fed.  `t_ns` (n,)
    int64, Unix epoch; `signals` (S,): which signals of the table the rows are; `raw` (S, n) int64, unsigned 64-bit
    values and IEEE floats as their bit pattern; `valid` (S, n) bool: which samples are present, None where all are.
    `source_address`: 0 to 255, who sent a message of J1939; None elsewhere.  `rows` (n,) int64, ascending: where the
    samples stand among those of other blocks that are delivered together; a source need not set it.
    """

    table: int
    t_ns: NDArray[np.int64]
    signals: tuple[int, ...]
    raw: NDArray[np.int64]
    valid: NDArray[np.bool_] | None = None
    source_address: int | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.t_ns)

    def slice(self, start: int, stop: int) -> "SignalBlock":
        """Return samples start to stop-1 as views."""
        return msgspec.structs.replace(
            self,
            t_ns=self.t_ns[start:stop],
            raw=self.raw[:, start:stop],
            valid=None if self.valid is None else self.valid[:, start:stop],
            rows=None if self.rows is None else self.rows[start:stop],
        )


def float_signal(name: str, source: str, unit: str | None = None) -> Described:
    """Describe a signal whose values are IEEE doubles, for sources whose values no database scales.

    The offset is -0.0, which adds nothing to any value, not even to -0.0: so the value arrives bit for bit.
    """
    return SignalInfo(name, source, unit, Kind.FLOAT64, 64, 1.0, -0.0), {}


def raw_of_floats(values: ArrayLike) -> NDArray[np.int64]:
    """Return the bit patterns of IEEE doubles, as a signal block carries them (same shape)."""
    return np.ascontiguousarray(values, np.float64).view(np.int64)
