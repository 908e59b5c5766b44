"""Gives each vehicle an allowance that it spends and that fills up again over time.  Thread-safe.

One stolen head unit can send as much as its link carries.  An allowance limits what the fleet does for it, so that the
other vehicles are served.  Allowances are generous, and a vehicle that has used up an allowance loses nothing: its
batches stay unanswered, so it keeps them and sends them again later.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

REMEMBERED: Final = 100_000
"""The limit of vehicles whose use is remembered.  The vehicle that was seen least recently is forgotten first."""


@dataclass(slots=True)
class _Account:
    used: float
    at_s: float


class Allowance:
    """Holds one allowance of `most` for each vehicle, which fills up by `per_s` each second."""

    def __init__(self, most: float, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lock = threading.Lock()

    def used(self, vehicle: str, now_s: float) -> float:
        """Return how much of its allowance the vehicle has used.  `now_s` is a reading of the monotonic clock."""
        with self._lock:
            account = self._accounts.get(vehicle)
            return 0.0 if account is None else self._used(account, now_s)

    def is_left(self, vehicle: str, now_s: float) -> bool:
        """Return whether the vehicle has any of its allowance left."""
        return self.used(vehicle, now_s) < self._most

    def spend(self, vehicle: str, amount: float, now_s: float) -> None:
        """Charge `amount` to the vehicle, even if the allowance does not cover it."""
        with self._lock:
            self._charge(vehicle, amount, now_s)

    def take(self, vehicle: str, now_s: float) -> bool:
        """Charge 1 to the vehicle and return True, or charge nothing and return False if less than 1 is left."""
        with self._lock:
            account = self._accounts.get(vehicle)
            if account is not None and self._used(account, now_s) > self._most - 1:
                return False
            self._charge(vehicle, 1, now_s)
            return True

    def _charge(self, vehicle: str, amount: float, now_s: float) -> None:
        account = self._accounts.setdefault(vehicle, _Account(0.0, now_s))
        account.used = self._used(account, now_s) + amount
        account.at_s = now_s
        self._accounts.move_to_end(vehicle)
        if len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)

    def _used(self, account: _Account, now_s: float) -> float:
        return max(account.used - (now_s - account.at_s) * self._per_s, 0.0)
