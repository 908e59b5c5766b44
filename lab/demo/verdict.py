"""Gives the verdict: compares the lake with the samples of the oracle, and the vehicle's reports with the plot."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from agent.errors import Permanent
from lab.demo.compare import compare
from lab.demo.drive import Record
from lab.demo.input import DriveInput
from lab.demo.oracle import Stage, expected_samples
from lab.demo.picture import Story, draw
from lab.demo.report import Result, broker_version
from lab.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the outcome of a drive.

    `record` says what happened.  `status` is what the agent reported about itself at the end of the drive, and
    `agent_status` is its exit status.  `toggle` is the value of the toggle `demo-greeting` at the end of the drive.
    `bytes_on_air` counts both directions.
    """

    record: Record
    status: Mapping[str, Any]
    toggle: object
    bytes_on_air: int
    tls: str
    agent_status: int
    started_s: float
    """The start of the demonstration, on the monotonic clock."""


def judge(source: DriveInput, world: World, campaigns: Mapping[str, Mapping[str, Any]], outcome: Outcome) -> Result:
    """Compare the lake with the oracle, draw the drive, and return the result.

    `campaigns` are all campaigns of the demonstration by name.

    Raises: Permanent if the vehicle's receipts do not name the campaigns of the plot.
    """
    record = outcome.record
    samples = _table(world, "samples")
    events = _table(world, "events").sort_by([("seq", "ascending"), ("row", "ascending")]).to_pylist()
    stages = _stages(events, campaigns)
    # The oracle must know from which frame on the pushed campaign was in force, and only the vehicle knows that.
    _check_plot(stages)
    expected = expected_samples(source.frames(), source.databases, source.match, stages)
    comparison = compare(expected, samples)
    picture = world.folder / "drive.png"
    moment = _on_the_drive(record, samples)
    story = Story(
        [(moment(start), moment(end)) for start, end in record.outages_us],
        [(moment(at), what) for at, what in record.marks_us],
    )
    drawn = draw(samples, story, f"{source.name}: signals in the lake", picture)
    # The vehicle must also have reported each refusal to the fleet, as an event in the lake.
    told = sum(event["kind"] == "push_refused" for event in events) >= len(record.refused)
    return Result(
        source=source.name,
        count=source.count,
        frames=expected.frames,
        frames_decoded=expected.decoded,
        frames_captured=sum(outcome.status["telemetry"]["frames"].values()),
        comparison=comparison,
        bytes_on_air=outcome.bytes_on_air,
        outage_s=record.outage_s,
        drive_s=record.drive_s,
        broker_kills=record.broker_kills,
        receiver_kills=record.receiver_kills,
        batches=_table(world, "batches").num_rows,
        losses=[json.loads(event["fields"]) for event in events if event["kind"] == "loss"],
        applied_version=record.applied_version,
        toggle=outcome.toggle,
        refused={name: refused and told for name, refused in record.refused.items()},
        broker=broker_version(),
        tls=outcome.tls,
        agent_status=outcome.agent_status,
        picture=picture,
        drawn=drawn,
        seconds=time.monotonic() - outcome.started_s,
    )


def _table(world: World, name: str) -> pa.Table:
    return DeltaTable(str(world.fleet.lake / name)).to_pyarrow_table()


def _stages(events: list[dict[str, Any]], documents: Mapping[str, Mapping[str, Any]]) -> list[Stage]:
    """Return the stages (see `Stage`) in the order in which they took effect.

    The vehicle's receipts in the lake name the campaigns of each stage.

    Raises: Permanent if the lake holds no receipt.
    """
    stages: list[Stage] = []
    for event in events:
        if event["kind"] == "campaigns_in_force":
            fields = json.loads(event["fields"])
            names = [term.partition("@")[0] for term in fields["campaigns"].split(",") if term]
            before = {key.removeprefix("frames."): int(n) for key, n in fields.items() if key.startswith("frames.")}
            stages.append((before, [documents[name] for name in names]))
    if not stages:
        raise Permanent("The lake holds no receipt of the campaigns in force. Check the log of the agent.")
    return stages


def _check_plot(stages: list[Stage]) -> None:
    """Check that the receipts name the campaigns of the plot.  Raises: Permanent if they do not.

    The oracle applies the campaigns that the vehicle reports.  If the vehicle applied wrong campaigns and reported the
    same campaigns, lake and oracle would agree.  Only this check finds such an error.
    """
    held = [sorted(document["name"] for document in documents) for _, documents in stages]
    changes = [names for number, names in enumerate(held) if number == 0 or names != held[number - 1]]
    if changes != [["everything"], ["changes"]]:
        raise Permanent(
            f"The vehicle reported the campaigns {changes}, but the demonstration expects 'everything' and then "
            "'changes'. Check the log of the agent."
        )


def _on_the_drive(record: Record, samples: pa.Table) -> Callable[[int], int]:
    """Return a function from wall-clock times of `record` to the time axis of the samples, in microseconds.

    The samples may have the times of a recorded log.  The start of the drive becomes the time of the first sample, the
    end of the drive becomes that of the last, and all other times are scaled.
    """
    times = samples["time"].cast(pa.int64()).to_numpy()
    first, last = int(times.min()), int(times.max())
    began, ended = record.drive_us
    scale = (last - first) / (ended - began)
    return lambda at_us: first + round((at_us - began) * scale)
