"""Converts the raw values of whole messages to physical values, because the other decoders return physical values.

The agent itself never needs physical values: it sends raw integers, and the lake converts them.
"""

import numpy as np
from numpy.typing import NDArray

from can_dbc.decoder import SignalColumns
from can_dbc.plan import SignalPlan
from can_dbc.values import WORD_BITS, Kind, physical


class Conversions:
    """Converts decoded columns to physical values.  Each message is prepared when it is first seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Conversion] = {}

    def physical(self, columns: SignalColumns) -> NDArray[np.float64]:
        """Return the physical values (S, n), equal to those of `can_dbc.values.physical`.

        A value for which `columns.valid` is False means nothing.
        """
        plan = columns.message
        key = (columns.bus, plan.can_id, plan.extended, plan.header_id, columns.signals)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Conversion([plan.signals[index] for index in columns.signals])
        return known(columns.raw)


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
        # Adding 0.0 to a product of integers matters only if the product can be -0.0.
        self._shifted = bool((self._offset != 0).any() or (self._scale <= 0).any())

    def __call__(self, raw: NDArray[np.int64]) -> NDArray[np.float64]:
        values = raw.astype(np.float64)
        with np.errstate(all="ignore"):  # Rows of IEEE floats still hold bit patterns.
            if self._scaled:
                values *= self._scale
            if self._shifted:
                values += self._offset
        for row, signal in self._odd:
            values[row] = physical(signal, raw[row])
        return values
