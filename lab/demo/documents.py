"""Writes the files of the demonstration's vehicle and fleet: agent.toml, campaigns and toggles."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.demo.input import DriveInput
from lab.vehicle import Vehicle, collect_everything

GREETING: Final = "hello again from the fleet"
"""The value that the toggle `demo-greeting` must have at the end of the drive."""

UPLINK: Final = "ack_timeout_s = 3.0\nbackoff_max_s = 2.0"


@dataclass(frozen=True, slots=True)
class Documents:
    """Holds the paths of the files that the fleet publishes during the drive, and all campaigns by name."""

    toggles: Path
    newer_toggles: Path
    changes: Path
    campaigns: Mapping[str, Mapping[str, Any]]


def toggles(greeting: str) -> dict[str, Any]:
    """Return a flag definition with two flags: a greeting for one brand, and a roll-out to half of the vehicles."""
    return {
        "flags": {
            "demo-greeting": {
                "state": "ENABLED",
                "variants": {"hello": greeting, "silent": ""},
                "defaultVariant": "silent",
                "targeting": {"if": [{"==": [{"var": "brand"}, "Aria"]}, "hello", None]},
            },
            "new-navigation": {
                "state": "ENABLED",
                "variants": {"on": True, "off": False},
                "defaultVariant": "off",
                "targeting": {"fractional": [["on", 50], ["off", 50]]},
            },
        }
    }


def campaigns(period_ms: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two campaigns: the vehicle starts with the first, and the fleet pushes the second.

    The first campaign keeps every sample, and the second keeps fewer.  `period_ms` is the window length of both.
    """
    everything = collect_everything(period_ms)
    changes = {
        "name": "changes",
        "priority": 1,
        "collectionScheme": everything["collectionScheme"],
        "signalsToCollect": [
            {"name": "*[Cc]ounter*", "minimumSamplingIntervalMs": 1000},
            {"name": "*[Ss]peed*", "minimumSamplingIntervalMs": 50},
            {"name": "*", "onChange": True, "minimumSamplingIntervalMs": 20},
        ],
    }
    return everything, changes


def write_documents(vehicle: Vehicle, source: DriveInput, length_s: float) -> Documents:
    """Write the files of vehicle and fleet for a drive that takes `length_s` seconds of wall time."""
    # A drive has twelve windows, so that the kills and the outage fall into different windows.
    everything, changes = campaigns(max(1_000, round(source.seconds * 1_000 / 12)))
    vehicle.write_campaigns(everything)
    vehicle.write(
        sources=source.agent_sources(source.seconds / length_s),
        telemetry=f"increment_s = {min(5.0, max(0.5, source.seconds / 24))}",
        uplink=UPLINK,
        pushes="trial_s = 5.0",
    )
    folder = vehicle.folder.parent
    documents = Documents(
        toggles=folder / "toggles.json",
        newer_toggles=folder / "newer-toggles.json",
        changes=folder / "changes.json",
        campaigns={"everything": everything, "changes": changes},
    )
    documents.toggles.write_text(json.dumps(toggles("hello from the fleet"), indent=2))
    documents.newer_toggles.write_text(json.dumps(toggles(GREETING), indent=2))
    documents.changes.write_text(json.dumps(changes, indent=2))
    return documents
