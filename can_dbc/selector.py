"""Finds which multiplexed signals a frame holds, from the raw value of their multiplexer.  Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from can_dbc.plan import MessagePlan, MultiplexerPlan, SignalPlan, as_raw
from can_dbc.values import Kind, floating


class Selector:
    """Holds one multiplexer as a boolean table that says which multiplexer number selects which signals.

    The table has a row for each selected signal (`children`), and a column for each number that the database lists.
    The last column, `unlisted`, stands for all other numbers.
    """

    def __init__(self, multiplexer: MultiplexerPlan, plan: MessagePlan, rows: Sequence[int]) -> None:
        self._multiplexer = multiplexer
        self._signal: SignalPlan = plan.signals[multiplexer.signal]
        self.name = self._signal.name
        self.row = rows.index(multiplexer.signal)
        numbers = multiplexer.numbers
        self.unlisted = len(numbers)
        self._column_of = {number: column for column, number in enumerate(numbers)}
        children = [r for r, index in enumerate(rows) if plan.signals[index].multiplexer == multiplexer.signal]
        self.children = np.array(children, np.intp)
        self.table = np.zeros((len(children), self.unlisted + 1), np.bool_)
        for row, child in enumerate(children):
            for number in plan.signals[rows[child]].multiplexer_ids:
                self.table[row, self._column_of[number]] = True
        raws = {as_raw(self._signal.kind, self._signal.bits, n): c for n, c in self._column_of.items()}
        listed = sorted((raw, column) for raw, column in raws.items() if raw is not None)
        self._raws = np.array([raw for raw, _ in listed] + [np.iinfo(np.int64).max], np.int64)
        self._columns = np.array([column for _, column in listed] + [self.unlisted], np.intp)

    def columns(self, raw: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the table's column for each raw value of the multiplexer."""
        if self._multiplexer.plain and self._signal.kind in (Kind.UINT, Kind.INT):
            place = np.searchsorted(self._raws[:-1], raw)
            return np.where(self._raws[place] == raw, self._columns[place], self.unlisted)
        values, inverse = np.unique(raw, return_inverse=True)
        return np.array([self._column(value) for value in values], np.intp)[inverse]

    def _column(self, raw: np.int64) -> int:
        """Return the column for one raw value of a multiplexer that is scaled, is a float, or selects by text."""
        # This repeats cantools' own arithmetic on Python numbers, because float64 would round large integers.
        multiplexer, signal = self._multiplexer, self._signal
        value: int | float = int(raw)
        if signal.kind not in (Kind.UINT, Kind.INT):
            value = float(floating(signal.kind, np.array([raw]))[0])
        elif signal.kind is Kind.UINT:
            value = int(raw.view(np.uint64))
        try:
            number = multiplexer.named.get(int(value))
            if number is None:
                number = int(value * multiplexer.scale + multiplexer.offset)
        except (ValueError, OverflowError):  # The value is NaN or infinite.
            return self.unlisted
        return self._column_of.get(number, self.unlisted)
