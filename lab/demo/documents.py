"""The files of the demonstration's vehicle and fleet: agent configuration, campaigns, toggles."""

import json
from pathlib import Path
from typing import Any, Final

from lab.demo.input import DriveInput
from lab.demo.world import World

GREETING: Final = "hello again from the fleet"
"""What the toggle `demo-greeting` says at the end of the drive."""

CONFIGURATION: Final = """\
{sources}
[state]
folder = "state"
runtime_folder = "run"
[telemetry]
increment_s = {increment_s}
[uplink]
broker = "localhost:{port}"
ack_timeout_s = 3.0
backoff_max_s = 2.0
[pushes]
trial_s = 5.0
[serve]
port = {status_port}
[log]
format = "json"
"""


def toggles(greeting: str) -> dict[str, Any]:
    """A flag definition: a greeting for one brand, and a roll-out to half of the vehicles."""
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
    """What the vehicle starts with: everything at its native rate; and what the fleet pushes: less."""
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    everything = {"name": "everything", "collectionScheme": scheme, "signalsToCollect": [{"name": "*"}]}
    changes = {
        "name": "changes",
        "priority": 1,
        "collectionScheme": scheme,
        "signalsToCollect": [
            {"name": "*[Cc]ounter*", "minimumSamplingIntervalMs": 1000},
            {"name": "*[Ss]peed*", "minimumSamplingIntervalMs": 50},
            {"name": "*", "onChange": True, "minimumSamplingIntervalMs": 20},
        ],
    }
    return everything, changes


def write_documents(world: World, source: DriveInput, broker_port: int, length_s: float) -> dict[str, Path]:
    """Write all files; the paths of what the fleet publishes on the way (by name)."""
    increment_s = min(5.0, max(0.5, source.seconds / 24))
    everything, changes = campaigns(max(1_000, round(source.seconds * 1_000 / 12)))
    vehicle = world.agent_config.parent
    world.agent_config.write_text(
        CONFIGURATION.format(
            sources=source.agent_sources(source.seconds / length_s),
            increment_s=increment_s,
            port=broker_port,
            status_port=world.status_port,
        )
    )
    (vehicle / "campaigns").mkdir()
    (vehicle / "campaigns" / "everything.json").write_text(json.dumps(everything, indent=2))
    names = ("toggles", "newer-toggles", "changes")
    documents = {name: world.folder / f"{name}.json" for name in names}
    documents["toggles"].write_text(json.dumps(toggles("hello from the fleet"), indent=2))
    documents["newer-toggles"].write_text(json.dumps(toggles(GREETING), indent=2))
    documents["changes"].write_text(json.dumps(changes, indent=2))
    return documents


def in_force(world: World) -> dict[str, dict[str, Any]]:
    """The campaign documents that can be in force, by name."""
    files = (world.agent_config.parent / "campaigns" / "everything.json", world.folder / "changes.json")
    documents = [json.loads(file.read_text()) for file in files]
    return {document["name"]: document for document in documents}
