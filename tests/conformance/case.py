"""What a case of the suite is, and where a vehicle differs from the suite's expectations by intent.

A case is a function that plays one case of the suite in a `World`.  It states the suite's expectations by the world's
methods `expect_...`.  Each expectation that a vehicle does not meet is a deviation.  Two kinds of deviations are
faults.  The other kinds are safe, and a case may be marked with the reason for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from agent.errors import Permanent
from agent.pushes.pushes import Examiner
from tests.conformance.client import Client, accepted
from tests.conformance.repository import Repository


class Deviation(Enum):
    """How a vehicle can deviate from an expectation of the suite."""

    ACCEPTS_BAD = "accepts what must be refused"
    KEEPS_BAD = "keeps a version or a document that must not be trusted"
    REFUSES_GOOD = "refuses what could be accepted"
    KEEPS_LESS = "keeps an older version, or lacks a document"
    ASKS_OTHERWISE = "asks for one bundle and not for single files"
    VISITS_LESS = "does not visit a delegated role"


FAULTS = frozenset((Deviation.ACCEPTS_BAD, Deviation.KEEPS_BAD))


class Intent(Enum):
    """Why a vehicle deviates from the suite on purpose."""

    ALL_OR_NOTHING = (
        "A refused bundle changes nothing: metadata that passed before the fault was met is not kept either, and the "
        "next bundle brings it again.  Who can withhold files gains nothing from that."
    )
    ONE_BUNDLE = "A vehicle asks for one bundle and makes no requests for single files, so there is no order of them."
    NO_DELEGATION = (
        "The targets role of a fleet delegates to no roles of free names, and a bundle cannot carry their files; a "
        "vehicle takes nothing from them."
    )
    WHOLE_RELEASE = "A vehicle takes all documents of a release at once, so it had the second one before the attack."
    SHA256 = "A bundle names the files of targets by SHA-256, which the fleet always signs."
    NOT_PLAYED = "The case needs a repository of another project, whose files are no documents of a vehicle."


@dataclass
class World:
    """A repository, a client of it, and how the client has deviated so far."""

    client: Client
    repository: Repository = field(default_factory=Repository)
    deviations: list[tuple[Deviation, str]] = field(default_factory=list)

    def init(self, trusted_root: bytes | None = None) -> None:
        """Give the vehicle the first root of the repository, or `trusted_root`."""
        self.client.init(self.repository.first_root if trusted_root is None else trusted_root)

    def expect_accepted(self, *, day: int = 0) -> None:
        """Let the client refresh, which the suite expects to succeed."""
        outcome = self.client.refresh(self.repository, day=day)
        if not accepted(outcome):
            self._deviate(Deviation.REFUSES_GOOD, f"{outcome.reason}: {outcome.detail}")

    def expect_refused(self, *, day: int = 0) -> None:
        """Let the client refresh, which the suite expects to fail."""
        try:
            outcome = self.client.refresh(self.repository, day=day)
        except Permanent:
            return  # the vehicle's first root is unusable, which it says once and loudly
        if accepted(outcome):
            self._deviate(Deviation.ACCEPTS_BAD, f"{outcome.result} version {outcome.version}")

    def refresh(self) -> None:
        """Let the client refresh; the suite allows both outcomes."""
        self.client.refresh(self.repository)

    def expect_trusted(self, **wanted: int) -> None:
        """Expect that the client trusts these versions, and none of other top-level roles that are not named."""
        found = self.client.trusted()
        for role in (*found, *wanted.keys() - found.keys()):
            have, want = found.get(role, 0), wanted.get(role, 0)
            if have != want:
                kind = Deviation.KEEPS_LESS if have < want else Deviation.KEEPS_BAD
                self._deviate(kind, f"{role} has version {have}, and not {want}")

    def expect_kept(self, role: str, content: bytes) -> None:
        """Expect that the client keeps exactly these bytes for `role`."""
        if self.client.metadata(role) != content:
            self._deviate(Deviation.KEEPS_BAD, f"the bytes of {role} differ from those that were served")

    def expect_documents(self, wanted: Mapping[str, bytes], *, others: bool = False) -> None:
        """Expect that the client has these documents, and no others unless `others` says so."""
        found = self.client.documents
        for path in (*found, *wanted.keys() - found.keys()):
            if path not in wanted and others:
                continue
            if path not in found:
                self._deviate(Deviation.KEEPS_LESS, f"{path} is missing")
            elif found[path] != wanted.get(path):
                self._deviate(Deviation.KEEPS_BAD, f"{path} has content that must not be trusted")

    def expect_requests(self, *requests: str) -> None:
        """Expect that the client asks for these single files, which no vehicle does."""
        self._deviate(Deviation.ASKS_OTHERWISE, f"no requests for {', '.join(requests)}")

    def expect_visited(self, *roles: str) -> None:
        """Expect that the client visits these delegated roles in this order, which no vehicle does."""
        self._deviate(Deviation.VISITS_LESS, ", ".join(roles))

    def _deviate(self, kind: Deviation, what: str) -> None:
        self.deviations.append((kind, what))


Play = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """One case of the suite under the name that it has there.  `intent` says why the vehicle deviates, if it does.

    A case that is not played has no `play`.
    """

    name: str
    play: Play | None
    intent: Intent | None = None

    def run(self, folder: Path, examine_bundle: Examiner) -> "Row":
        """Play the case for a vehicle that has its state in `folder`."""
        if self.play is None:
            return Row(self.name, "not played", self._reason(), ())
        world = World(Client(folder, examine_bundle))
        self.play(world)
        found = [f"{kind.value}: {what}" for kind, what in world.deviations]
        if not found:
            return Row(self.name, "as expected", "", ())
        if self.intent is None or {kind for kind, _ in world.deviations} & FAULTS:
            return Row(self.name, "fails", "", found)
        return Row(self.name, "differs", self._reason(), found)

    def _reason(self) -> str:
        return "" if self.intent is None else self.intent.value


@dataclass(frozen=True)
class Row:
    """One row of the table.  `result` is "as expected", "differs" (by intent), "not played" or "fails"."""

    case: str
    result: str
    reason: str
    deviations: Sequence[str]
