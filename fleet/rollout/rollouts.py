"""Carries out staged roll-outs: each method does one step, and may be repeated after a crash at any moment.

`step` does whatever is due now.  A process that calls it again and again (`fleet rollout run`) therefore needs no
memory of its own, and a person may call it by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.errors import Permanent
from agent.formats.down.audience import parse_audience
from agent.formats.down.documents import KINDS, Document, Kind, kind_of, read_document
from fleet.lake.location import Location
from fleet.lake.vehicles import enrolled_vehicles
from fleet.publishing.publish import read_new
from fleet.publishing.repository import read_state
from fleet.publishing.stage import earlier_targets, publish_stage
from fleet.rollout.book import Book
from fleet.rollout.judge import Judgement, Tally, Verdict, judge
from fleet.rollout.members import Tallies, count, stages_of
from fleet.rollout.plan import Phase, Plan, Rollout, StageRecord
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry


@dataclass(frozen=True, slots=True)
class Request:
    """Holds what `fleet rollout start` asks for.

    `files` are pairs (name of the kind, path of a file).  `audience` is a text that `parse_audience` reads.  `broker`
    is HOST:PORT, or empty.
    """

    files: Sequence[tuple[str, Path]]
    audience: str
    plan: Plan
    broker: str = ""


class Rollouts:
    """Carries out the roll-outs of one fleet.  `now_s` returns the Unix time."""

    def __init__(
        self, fleet: FleetFolder, lake: Location, now_s: Callable[[], float], kinds: Sequence[Kind] = KINDS
    ) -> None:
        self._fleet = fleet
        self._lake = lake
        self._now_s = now_s
        self._kinds = kinds
        self._book = Book(fleet)

    def start(self, request: Request) -> Rollout:
        """Check the documents, record a new roll-out, and publish its first stage.

        Raises: Permanent if another roll-out is active, or if a vehicle would refuse a document; Transient if another
        publisher is at work.
        """
        by_name = {kind.name: kind for kind in self._kinds}
        new = read_new([(by_name[kind], file) for kind, file in request.files])
        with self._book.locked():
            active = self._book.read()
            if active is not None and (active.phase.active or not active.published):
                raise Permanent(f"The roll-out {active.id} is {active.phase}. Let it end, or use `fleet rollout back`.")
            audience = parse_audience(request.audience)
            if any("percent" in rule for rule in audience):
                raise Permanent("--audience percent cannot be used here, because the stages give the share.")
            earlier = tuple(earlier_targets(self._fleet, list(new), self._kinds))
            hashes = self._book.write_documents({path: document.content for path, document in new.items()})
            same = [path for path in new for each in earlier if each.sha256 == hashes[path]]
            if same:
                raise Permanent(f"The document {same[0]} is published already with this content. Leave it out.")
            for percent in request.plan.stages:
                # Every stage is checked before the first is published, so that none can fail half-way.
                publish_stage(
                    self._fleet,
                    new,
                    earlier,
                    audience=audience,
                    percent=percent,
                    now=self._now(),
                    kinds=self._kinds,
                    dry_run=True,
                )
            rollout = Rollout(
                id=f"{self._now():%Y%m%dT%H%M%SZ}-{min(hashes.values())[:8]}",
                plan=request.plan,
                documents=hashes,
                audience=request.audience,
                earlier=earlier,
                broker=request.broker,
                stages=(self._stage(request.plan.stages[0]),),
            )
            self._refuse_nobody(rollout)
            self._book.write(rollout)
            return self._publish(rollout)

    def step(self, *, hurry: bool = False) -> tuple[Rollout, Judgement | None]:
        """Look at the receipts, and do what is due: publish, go on to the next stage, stop, or nothing.

        Return the roll-out, and what was decided about its stage, if it was judged.  With `hurry`, a stage whose
        failures are within the limit ends now.

        Raises: Permanent if there is no roll-out or a file is damaged; Transient if another process is at work.
        """
        with self._book.locked():
            rollout = self._book.require()
            if not rollout.published:
                return self._publish(rollout), None
            if not rollout.phase.active:
                return rollout, None
            counted = count(self._fleet, self._lake, rollout)
            rollout = self._noted(rollout, counted)
            stage, added = rollout.stages[-1], counted.stages[-1]
            held_s = self._now_s() - stage.began_s
            judgement = judge(rollout.plan, stage.percent, added, counted.everyone, held_s, hurry=hurry)
            if judgement.verdict is Verdict.STOP:
                return self._return(rollout, Phase.STOPPED, judgement.why), judgement
            if judgement.verdict is Verdict.GO_ON and rollout.phase is Phase.RUNNING:
                return self._go_on(rollout, judgement.why), judgement
            self._book.write(rollout)
            return rollout, judgement

    def pause(self) -> Rollout:
        """Begin no further stage until `resume`.  Failures above the limit still stop the roll-out.

        Raises: Permanent if no roll-out is running or a file is damaged; Transient if another process is at work.
        """
        return self._switch(Phase.RUNNING, Phase.PAUSED, "The operator paused the roll-out.")

    def resume(self) -> Rollout:
        """Let a paused roll-out go on.

        Raises: Permanent if no roll-out is paused or a file is damaged; Transient if another process is at work.
        """
        return self._switch(Phase.PAUSED, Phase.RUNNING, "")

    def back(self) -> Rollout:
        """Publish the earlier contents again, for the vehicles that have the new ones.

        Raises: Permanent if there is no roll-out, if it has been taken back already, or if its documents were published
        otherwise since it ended.
        """
        with self._book.locked():
            rollout = self._book.require()
            if rollout.phase in (Phase.STOPPED, Phase.BACK):
                return rollout if rollout.published else self._publish(rollout)
            if rollout.phase is Phase.DONE:
                now = {each.sha256 for each in earlier_targets(self._fleet, list(rollout.documents), self._kinds)}
                if not set(rollout.documents.values()) <= now:
                    raise Permanent(
                        f"The documents of the roll-out {rollout.id} were published again since it ended, so it cannot "
                        "be taken back. Publish the content that you want with `fleet publish`."
                    )
            return self._return(rollout, Phase.BACK, "The operator took the roll-out back.")

    def latest(self) -> Rollout:
        """Return the latest roll-out as it is stored.  Raises: Permanent if there is none."""
        return self._book.require()

    def show(self) -> tuple[Rollout, Tallies]:
        """Return the latest roll-out with the present counts, and change nothing.

        Raises: Permanent if there is none.
        """
        rollout = self._book.require()
        return rollout, count(self._fleet, self._lake, rollout)

    def empty_stages(self, rollout: Rollout) -> tuple[float, ...]:
        """Return the shares of the planned stages that add none of the vehicles that are enrolled now.

        Raises: Permanent if the registry or the lake cannot be read.
        """
        stages = rollout.plan.stages
        whole = msgspec.structs.replace(rollout, stages=tuple(StageRecord(percent, 0) for percent in stages))
        added = set(stages_of(enrolled_vehicles(self._lake, Registry(self._fleet.vehicles)), whole).values())
        return tuple(percent for index, percent in enumerate(stages) if index not in added)

    def _switch(self, before: Phase, after: Phase, why: str) -> Rollout:
        with self._book.locked():
            rollout = self._book.require()
            if rollout.phase is not before:
                raise Permanent(
                    f"The roll-out {rollout.id} is {rollout.phase}, but this command needs one that is {before}. "
                    "See `fleet rollout status`."
                )
            rollout = msgspec.structs.replace(rollout, phase=after, why=why)
            self._book.write(rollout)
            return rollout

    def _go_on(self, rollout: Rollout, why: str) -> Rollout:
        ended = rollout.with_stage(msgspec.structs.replace(rollout.stages[-1], ended_s=self._now_s()))
        following = rollout.next_percent
        if following is None:
            done = msgspec.structs.replace(ended, phase=Phase.DONE, why=why)
            self._book.write(done)
            return done
        begun = msgspec.structs.replace(ended, stages=(*ended.stages, self._stage(following)), published=False, why=why)
        self._book.write(begun)
        return self._publish(begun)

    def _return(self, rollout: Rollout, phase: Phase, why: str) -> Rollout:
        """Record that the earlier contents return, and publish them."""
        ended = rollout.with_stage(msgspec.structs.replace(rollout.stages[-1], ended_s=self._now_s()))
        returning = msgspec.structs.replace(ended, phase=phase, why=why, published=False)
        self._book.write(returning)
        return self._publish(returning)

    def _publish(self, rollout: Rollout) -> Rollout:
        """Publish what the phase and the stage of `rollout` want, and record that it is published."""
        version, written = publish_stage(
            self._fleet,
            self._documents(rollout.documents),
            rollout.earlier,
            audience=parse_audience(rollout.audience),
            percent=rollout.percent,
            now=self._now(),
            kinds=self._kinds,
        )
        stage = rollout.stages[-1]
        if rollout.phase.active:
            # Another publisher may have written a version since the stage was recorded.  If a killed process has
            # published this stage, its version is not known exactly, and the recorded one is a lower bound.
            stage = msgspec.structs.replace(stage, version=version if written else stage.version, began_s=self._now_s())
        published = msgspec.structs.replace(rollout.with_stage(stage), published=True)
        self._book.write(published)
        return published

    def _documents(self, hashes: Mapping[str, str]) -> dict[str, Document]:
        found = {}
        for path, sha256 in hashes.items():
            kind = kind_of(path, self._kinds)
            if kind is None:
                raise Permanent(f"This release knows no documents at {path}. Use the release that began the roll-out.")
            found[path] = read_document(kind, self._book.document(sha256), path, path)
        return found

    def _refuse_nobody(self, rollout: Rollout) -> None:
        enrolled = enrolled_vehicles(self._lake, Registry(self._fleet.vehicles))
        whole = msgspec.structs.replace(rollout, stages=(StageRecord(100.0, 0),))
        if not stages_of(enrolled, whole):
            raise Permanent(
                f"The audience {rollout.audience or 'of all vehicles'} has none of the {len(enrolled):,} enrolled "
                "vehicles, so no receipt could ever come. Check --audience."
            )

    def _noted(self, rollout: Rollout, counted: Tallies) -> Rollout:
        """Return the roll-out with the counts of its stages."""
        stages = (_with_counts(stage, each) for stage, each in zip(rollout.stages, counted.stages, strict=True))
        return msgspec.structs.replace(rollout, stages=tuple(stages))

    def _stage(self, percent: float) -> StageRecord:
        return StageRecord(percent, read_state(self._fleet.metadata).versions.targets + 1)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)


def _with_counts(stage: StageRecord, counted: Tally) -> StageRecord:
    return msgspec.structs.replace(
        stage,
        vehicles=counted.vehicles,
        confirmed=counted.confirmed,
        failed=counted.failed,
        reasons=dict(counted.reasons),
    )
