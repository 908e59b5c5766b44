"""Signal tables and signal blocks, which carry decoded values from a source to the consumers.  Pure.

A signal table describes signals that come together.  One kind of signal table is a message of a bus plan.  Another kind
comes from a source of values that are not CAN frames, such as GNSS or diagnostics.  A signal block holds samples of one
table as columns.  Consumers do not distinguish the two kinds.
"""

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.formats.up.columns import Described, SignalInfo
from can_dbc.values import Kind

Limits = tuple[float | None, float | None]


class SignalTable(msgspec.Struct, frozen=True):
    """Describes signals that come together, such as the signals of one message.

    `signals` has a description and a value table for each signal.  The name of a signal is
    "<name of the table>.<signal>", and its `bus` is the channel, or the name of the source.  `limits` has the minimum
    and the maximum of each signal's physical value, or is empty if the source knows none.
    """

    name: str
    signals: tuple[Described, ...]
    limits: tuple[Limits, ...] = ()


class SignalBlock(msgspec.Struct, frozen=True, eq=False):
    """Holds samples of one signal table as columns, in the order of their source.

    - `table` is the number of the signal table among all tables of the collector.  A source of values does not know
      this number, and counts only its own tables.  The feeder of the source (agent/sources/feeder.py) then replaces the
      number before the collector takes the block.
    - `t_ns` (n,) has the times since the Unix epoch.
    - `signals` (S,) has, for each row of `raw`, the index of the row's signal in the signal table.
    - `raw` (S, n) has the raw values.  Unsigned 64-bit values and IEEE floats are stored as bit patterns.
    - `valid` (S, n) says which samples are present; None means all.
    - `source_address` (0 to 255) is the one sender of all samples of a J1939 message; None for other messages.
    - `rows` (n,), ascending, gives each sample its place in the order of all samples of the blocks that are delivered
      together.  A source of values need not set it.
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
        """Return a block with the samples from `start` to `stop` - 1, as views."""
        return msgspec.structs.replace(
            self,
            t_ns=self.t_ns[start:stop],
            raw=self.raw[:, start:stop],
            valid=None if self.valid is None else self.valid[:, start:stop],
            rows=None if self.rows is None else self.rows[start:stop],
        )


def float_signal(name: str, source: str, unit: str | None = None) -> Described:
    """Return the description of a signal of IEEE doubles, for a source whose values no database scales.

    The offset is -0.0, because adding it changes no value, not even -0.0.  Values therefore arrive bit for bit.
    """
    return SignalInfo(name, source, unit, Kind.FLOAT64, 64, 1.0, -0.0), {}


def raw_of_floats(values: ArrayLike) -> NDArray[np.int64]:
    """Return the bit patterns of IEEE doubles for a signal block, in the same shape."""
    return np.ascontiguousarray(values, np.float64).view(np.int64)
