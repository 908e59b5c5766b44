"""The adapter between the suite and a vehicle: `init`, `refresh` and `download` on the real push store and verifier."""

import asyncio
from pathlib import Path

from tuf.api.metadata import Metadata

from agent.formats.down.bundle import SyncRequest, parse_request
from agent.pushes.pushes import BUILT_AT_S, Examiner, Pushes
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.store import Store
from agent.pushes.updater import root_name
from tests.agent.pushes.world import NOW, VEHICLE
from tests.conformance.repository import ALL, Repository

DAY_S = 86_400


class Client:
    """One vehicle that was made with the first root of `repository`, and has its state in `folder`."""

    def __init__(self, folder: Path, examine_bundle: Examiner) -> None:
        self._folder = folder
        self._examine_bundle = examine_bundle
        self._pushes: Pushes | None = None
        self._day = 0
        self.root = b""

    def init(self, trusted_root: bytes) -> None:
        """Do what the factory does: give the vehicle its first root."""
        self.root = trusted_root
        self._pushes = Pushes.open(
            self._folder,
            trusted_root=trusted_root,
            vehicle=VEHICLE,
            now_s=lambda: max(NOW.timestamp(), BUILT_AT_S) + self._day * DAY_S,
            examine_bundle=self._examine_bundle,
        )

    def refresh(self, repository: Repository, *, day: int = 0) -> PushOutcome:
        """Offer the vehicle what `repository` serves, `day` days later, and return the outcome.

        Raises: Permanent if the first root of the vehicle is unusable.
        """
        self._day = day
        return asyncio.run(self._opened.offer(repository.bundle()))

    @property
    def documents(self) -> dict[str, bytes]:
        """Return the documents in force, which are what this vehicle downloads."""
        release = self._opened.current()
        return {} if release is None else release.documents

    @property
    def request(self) -> SyncRequest:
        """Return what the vehicle would ask for next."""
        return parse_request(self._opened.sync_request())

    def trusted(self) -> dict[str, int]:
        """Return the version of each role that the vehicle trusts, as its disk has it; roles without one are absent."""
        found = {role: self.metadata(role) for role in ALL}
        return {role: Metadata.from_bytes(content).signed.version for role, content in found.items() if content}

    def metadata(self, role: str) -> bytes:
        """Return the file that the vehicle keeps for `role`, or nothing."""
        record = Store.open(self._folder).record
        kept = record.metadata
        if role != "root":
            return kept.get(f"{role}.json", b"")
        # The root of the factory is not kept again, and all later ones are.
        return kept.get(root_name(record.floor.root), self.root)

    @property
    def _opened(self) -> Pushes:
        assert self._pushes is not None, "the case refreshes before init"
        return self._pushes


def accepted(outcome: PushOutcome) -> bool:
    return outcome.result is not Result.REFUSED
