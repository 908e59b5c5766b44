"""Condition-based campaigns from a recorded drive to the lake: agent, broker, receiver, sample by sample."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.lake.query import query
from tests.agent.car import Car
from tests.agent.telemetry.collect.conditions import shared_cases
from tests.integration.lake import receiving

pytestmark = [pytest.mark.integration, pytest.mark.shared]

_TRIGGERS = "SELECT epoch_us(time) AS t_us, fields FROM events WHERE kind = 'trigger'"
_SAMPLES = """
    SELECT trigger AS n, epoch_us(time) AS t_us, bus, signal, raw, value, text, source_address
    FROM samples WHERE campaign = '{campaign}'"""


def lake_after(folder: Path, case: shared_cases.Case) -> str:
    """Replay the log of a case with its campaign, and return the lake."""
    car = Car.make(folder)
    tables = []
    for bus, files, match in case.databases:
        dbc = json.dumps([str(file) for file in files])
        tables.append(f'[bus.{bus}]\ndbc = {dbc}\nmatch = "{match.value}"\n')
    car.buses = "\n".join(tables)
    car.write()
    for old in car.campaigns.glob("*.json"):
        old.unlink()
    car.write_campaigns(case.document)
    with receiving(car):
        agent = car.start("replay", "--log", str(case.log), "--speed", "0")
        assert agent.wait() == 0, agent.output()
    return str(car.fleet.lake)


def records_in(lake: str, campaign: str) -> list[dict[str, Any]]:
    """Return the records of a campaign as an engineer reads them from the lake."""
    found: list[dict[str, Any]] = []
    for row in query(lake, _TRIGGERS).to_pylist():
        fields = json.loads(row["fields"])
        assert fields["campaign"] == campaign
        made = {"k": "trigger", "n": fields["number"], "t_us": row["t_us"], "until_us": fields["until_us"]}
        found.append(made | {"names": json.loads(fields["names"])} if "names" in fields else made)
    for row in query(lake, _SAMPLES.format(campaign=campaign)).to_pylist():
        message, _, signal = row["signal"].rpartition(".")
        made = {"k": "sample", "n": row["n"], "t_us": row["t_us"], "bus": row["bus"], "signal": signal}
        if row["signal"] == "Vehicle.MultiRisingEdgeTrigger":
            found.append(made | {"message": "", "raw": None, "value": row["text"]})
            continue
        made |= {"message": message, "raw": row["raw"], "value": row["value"]}
        sender = row["source_address"]
        found.append(made if sender is None else made | {"source_address": sender})
    return found


@pytest.mark.parametrize("name", ["hard-braking", "multi-rising-edge", "j1939-by-pgn-two-buses", "triggers-only"])
def test_what_triggers_send_is_in_the_lake_with_the_number_of_the_trigger(tmp_path: Path, name: str) -> None:
    case = shared_cases.case(name)
    lake = lake_after(tmp_path, case)
    assert shared_cases.difference(case.expected, records_in(lake, f"replay:{case.document['name']}")) is None
