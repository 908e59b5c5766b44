"""The verdict takes its stages from the vehicle's receipts, and every kind of failure fails it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from agent.errors import Permanent
from lab.demo.compare import Comparison
from lab.demo.documents import GREETING
from lab.demo.drive import Record
from lab.demo.log_count import Count
from lab.demo.report import Result, render
from lab.demo.verdict import _check_plot, _on_the_drive, _stages

EVERYTHING, CHANGES = {"name": "everything"}, {"name": "changes"}
DOCUMENTS = {"everything": EVERYTHING, "changes": CHANGES}


def receipt(campaigns: str, **frames: int) -> dict[str, Any]:
    fields = {"campaigns": campaigns} | {f"frames.{bus}": count for bus, count in frames.items()}
    return {"kind": "campaigns_in_force", "fields": json.dumps(fields)}


def test_stages_are_what_the_vehicle_said() -> None:
    events = [
        receipt("everything@0123456789ab"),
        {"kind": "push_applied", "fields": '{"version": 2}'},
        receipt("everything@0123456789ab,changes@ba9876543210", can0=10, can1=7),
    ]
    assert _stages(events, DOCUMENTS) == [({}, [EVERYTHING]), ({"can0": 10, "can1": 7}, [EVERYTHING, CHANGES])]


def test_without_a_receipt_there_is_no_verdict() -> None:
    with pytest.raises(Permanent, match="no receipt"):
        _stages([], DOCUMENTS)


def test_the_outage_is_shown_in_the_drives_own_time() -> None:
    record = Record(outages_us=[(1_500, 1_750)], drive_us=(1_000, 2_000))
    samples = pa.table({"time": pa.array([50_000, 10_000, 20_000], pa.timestamp("us"))})
    moment = _on_the_drive(record, samples)
    assert [(moment(start), moment(end)) for start, end in record.outages_us] == [(30_000, 40_000)]


GOOD = Result(
    source="virtual vehicle",
    count=Count(100, "made by the simulator"),
    frames=100,
    frames_decoded=100,
    frames_captured=100,
    comparison=Comparison(50, 50, 0, 0, 0, ()),
    bytes_on_air=1_000,
    outage_s=10.0,
    drive_s=30.0,
    broker_kills=1,
    receiver_kills=1,
    batches=7,
    losses=(),
    applied_version=3,
    toggle=GREETING,
    refused={"tampered": True, "rollback": True, "foreign_key": True},
    broker="mosquitto 2",
    tls="TLSv1.3",
    agent_status=0,
    picture=Path("drive.png"),
    drawn=(),
    seconds=60.0,
)


def test_all_well_passes() -> None:
    assert GOOD.passed
    assert "PASSED" in render(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"count": Count(101, "lines")},
        {"comparison": Comparison(50, 49, 1, 0, 0, ())},
        {"comparison": Comparison(50, 51, 0, 1, 0, ())},
        {"comparison": Comparison(50, 50, 0, 0, 1, ())},
        {"comparison": Comparison(0, 0, 0, 0, 0, ())},
        {"frames_captured": 99},
        {"losses": ({"reason": "bus_overflow"},)},
        {"refused": {"tampered": True, "rollback": False, "foreign_key": True}},
        {"toggle": "hello from the fleet"},
        {"agent_status": 1},
    ],
    ids="-".join,
)
def test_anything_amiss_fails(change: dict[str, Any]) -> None:
    failed = replace(GOOD, **change)
    assert not failed.passed
    assert "PASSED" not in render(failed)


def test_a_drive_without_an_outage_to_speak_of_shows_nothing_and_says_so() -> None:
    slow = replace(GOOD, outage_s=2.0)
    assert not slow.passed
    assert "NOT SHOWN: the connection was cut for only 2 of 30 s" in render(slow)
    assert "--length 120" in render(slow)
    assert "FAILED" in render(replace(slow, agent_status=1))
    assert replace(GOOD, outage_s=3.0).passed


def test_only_an_outage_during_the_drive_counts() -> None:
    assert Record(outages_us=[(9_000_000, 14_000_000)], drive_us=(0, 10_000_000)).outage_s == 1.0
    assert Record(outages_us=[(10_000_000, 14_000_000)], drive_us=(0, 10_000_000)).outage_s == 0.0


def test_the_last_line_says_where_to_look_now() -> None:
    shown = render(replace(GOOD, picture=Path("/run/demo/drive.png")))
    *_, last = shown.rstrip().splitlines()
    assert last.strip().startswith("look now  open /run/demo/drive.png, or ask the lake: ")
    assert last.endswith("query latest --fleet /run/demo/fleet")


def test_the_document_has_the_promised_keys() -> None:
    document = GOOD.as_dict()
    assert {
        "source", "frames", "samples_expected", "samples_in_lake", "missing", "duplicates", "differing", "bytes_on_air",
        "bytes_per_sample", "outage_s", "broker_kills", "receiver_kills", "batches", "toggles", "broker", "tls",
    } <= set(document)  # fmt: skip
    assert document["toggles"] == {"applied_version": 3, "refused": GOOD.refused, "value": GREETING}
    json.dumps(document)


def test_a_vehicle_that_tells_of_other_campaigns_than_it_was_given_is_not_believed() -> None:
    _check_plot([({}, [EVERYTHING]), ({"can0": 3}, [EVERYTHING]), ({"can0": 9}, [CHANGES])])
    for told in ([({}, [CHANGES])], [({}, [EVERYTHING])], [({}, [CHANGES]), ({}, [EVERYTHING])]):
        with pytest.raises(Permanent, match="'everything' and then 'changes'"):
            _check_plot(told)
