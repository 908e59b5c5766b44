"""The verdict: what the lake holds against what the oracle says it must, and whether the pushes went as they should."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from agent.errors import Permanent
from lab.demo.compare import compare
from lab.demo.documents import in_force
from lab.demo.drive import Record
from lab.demo.input import DriveInput
from lab.demo.oracle import Stage, expected_samples
from lab.demo.picture import draw
from lab.demo.report import Result, broker_version
from lab.demo.world import World


def judge(
    source: DriveInput,
    world: World,
    record: Record,
    status: Mapping[str, Any],
    *,
    toggle: object,
    bytes_on_air: int,
    tls: str,
    agent_status: int,
    started_s: float,
) -> Result:
    """Read the lake, decode the input again with cantools, compare, and draw the drive.

    `status` is the agent's last one; `started_s` when the demonstration began (monotonic clock).
    """
    samples = _table(world, "samples")
    events = _table(world, "events").sort_by([("seq", "ascending"), ("row", "ascending")]).to_pylist()
    stages = _stages(events, in_force(world))
    _check_plot(stages)
    expected = expected_samples(source.frames(), source.databases, source.match, stages)
    comparison = compare(expected, samples)
    picture = world.folder / "drive.png"
    drawn = draw(samples, _outages(record, samples), f"{source.name}: as it lies in the lake", picture)
    return Result(
        source=source.name,
        frames=expected.frames,
        frames_decoded=expected.decoded,
        frames_captured=sum(status["telemetry"]["frames"].values()),
        comparison=comparison,
        bytes_on_air=bytes_on_air,
        outage_s=sum(end - start for start, end in record.outages_us) / 1e6,
        broker_kills=record.broker_kills,
        receiver_kills=record.receiver_kills,
        batches=_table(world, "batches").num_rows,
        losses=[json.loads(event["fields"]) for event in events if event["kind"] == "loss"],
        applied_version=record.applied_version,
        toggle=toggle,
        refused={
            name: refused and sum(event["kind"] == "push_refused" for event in events) >= len(record.refused)
            for name, refused in record.refused.items()
        },
        broker=broker_version(),
        tls=tls,
        agent_status=agent_status,
        picture=picture,
        drawn=drawn,
        seconds=time.monotonic() - started_s,
    )


def _table(world: World, name: str) -> pa.Table:
    return DeltaTable(str(world.fleet.lake / name)).to_pyarrow_table()


def _stages(events: list[dict[str, Any]], documents: Mapping[str, Mapping[str, Any]]) -> list[Stage]:
    """When which campaigns took effect, as the vehicle's own receipts in the lake say."""
    stages: list[Stage] = []
    for event in events:
        if event["kind"] == "campaigns_in_force":
            fields = json.loads(event["fields"])
            names = [term.partition("@")[0] for term in fields["campaigns"].split(",") if term]
            before = {key.removeprefix("frames."): int(n) for key, n in fields.items() if key.startswith("frames.")}
            stages.append((before, [documents[name] for name in names]))
    if not stages:
        raise Permanent("the lake holds no receipt of the campaigns in force")
    return stages


def _check_plot(stages: list[Stage]) -> None:
    """The vehicle's receipts must tell of the campaigns that the drive gave it, not of whatever suits it."""
    held = [sorted(document["name"] for document in documents) for _, documents in stages]
    changes = [names for number, names in enumerate(held) if number == 0 or names != held[number - 1]]
    if changes != [["everything"], ["changes"]]:
        raise Permanent(f"the vehicle says that it collected for {changes}, not for everything and then changes")


def _outages(record: Record, samples: pa.Table) -> list[tuple[int, int]]:
    """The outage in the drive's own time, which runs from the first sample to the last while the drive does."""
    times = samples["time"].cast(pa.int64()).to_numpy()
    first, last = int(times.min()), int(times.max())
    (start, end), (began, ended) = record.outages_us[0], record.drive_us
    scale = (last - first) / (ended - began)
    return [(first + round((start - began) * scale), first + round((end - began) * scale))]
