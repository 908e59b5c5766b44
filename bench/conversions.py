"""Convert the raw values of whole messages to physical values, all signals at once.

The product never does this for whole messages, because raw integers travel; the decoders that bench compares with
give physical values, so bench measures our decoder with the conversion.  Invariant: each value is what `plan.physical`
gives for its signal, to the last bit.
"""

import numpy as np
from numpy.typing import NDArray

from can_dbc.decoder import SignalColumns
from can_dbc.plan import WORD_BITS, Kind, MessagePlan, SignalPlan, physical


class Conversions:
    """Converts decoded columns; what a message needs is worked out when it is first seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[int, ...]], tuple[MessagePlan, _Conversion]] = {}

    def physical(self, columns: SignalColumns) -> NDArray[np.float64]:
        """Physical values (S, n); they mean something where `columns.valid` says so."""
        key = (id(columns.message), columns.signals)
        known = self._known.get(key)
        if known is None:
            signals = [columns.message.signals[index] for index in columns.signals]
            # The message is held, so its id stays its own.
            known = self._known[key] = (columns.message, _Conversion(signals))
        return known[1](columns.raw)


class _Conversion:
    def __init__(self, signals: list[SignalPlan]) -> None:
        self._odd = [
            (row, s)
            for row, s in enumerate(signals)
            if s.kind not in (Kind.UINT, Kind.INT) or (s.kind is Kind.UINT and s.bits == WORD_BITS)
        ]
        self._scale = np.array([[s.scale] for s in signals], np.float64).reshape(-1, 1)
        self._offset = np.array([[s.offset] for s in signals], np.float64).reshape(-1, 1)
        self._scaled = bool((self._scale != 1).any())
        # Adding 0.0 to a product of integers only matters where that can be -0.0.
        self._shifted = bool((self._offset != 0).any() or (self._scale <= 0).any())

    def __call__(self, raw: NDArray[np.int64]) -> NDArray[np.float64]:
        values = raw.astype(np.float64)
        with np.errstate(all="ignore"):  # rows of IEEE floats are not numbers yet
            if self._scaled:
                values *= self._scale
            if self._shifted:
                values += self._offset
        for row, signal in self._odd:
            values[row] = physical(signal, raw[row])
        return values
