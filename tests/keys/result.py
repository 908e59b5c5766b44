"""Holds what a drill of the keys has counted, and whether it passed."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Result:
    """Holds the result of a drill.

    `seconds` maps each rotation to the time until all vehicles online had followed.  `needed_old_key` counts the
    vehicles for which `fleet keys list` keeps the earlier sealing key: while some are offline, and in the end.
    """

    vehicles: int
    offline: int
    frames_per_vehicle: int = 0
    samples_expected: int = 0
    samples_in_lake: int = 0
    doubles: int = 0
    losses: int = 0
    certificates_renewed: int = 0
    needed_old_key: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Return whether each sample is in the lake exactly once, and every vehicle has a new certificate."""
        return (
            self.samples_in_lake == self.samples_expected > 0
            and self.doubles == self.losses == 0
            and self.certificates_renewed == self.vehicles
            and self.needed_old_key["offline"] >= self.offline
            and self.needed_old_key["end"] == 0
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self) | {"passed": self.passed}


def write_result(result: Result, path: Path) -> None:
    """Write the result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
