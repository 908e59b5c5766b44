"""What each kind of pushed documents changes in the running agent: one effect for each row of the table of kinds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.formats.down.campaign import Campaign
from agent.formats.down.documents import CAMPAIGN, TOGGLES, Documents
from agent.formats.down.evaluation import Evaluator
from agent.formats.up.columns import Event
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox

_NAMES_LETTERS: Final = 2_000
"""How much of the campaigns' names an event carries: it travels in one batch, which may be as small as 4,096 bytes."""


class Change(Protocol):
    """The change that the documents of one kind make; it has not been made yet."""

    def write(self) -> None:
        """Write what must be on the disk.  Blocking.

        Raises: Transient where the disk refuses it; what was there is then still there.
        """

    def withdraw(self) -> None:
        """Remove what an earlier process wrote, because it would contradict this change.  Blocking; raises nothing."""

    async def switch(self) -> Mapping[str, object]:
        """Take effect, which cannot fail.  Returns facts for the log."""


class Effect(Protocol):
    """How documents of one kind take effect."""

    def prepare(self, documents: Documents) -> Change:
        """Return the change that the documents of a release result in; change nothing.

        Raises: AgentError where the documents cannot be used.
        """


class TogglesEffect:
    """Toggles are served by OFREP and written to flagd's file."""

    def __init__(self, service: ToggleService, file: FlagdFile) -> None:
        self._service = service
        self._file = file

    def prepare(self, documents: Documents) -> Change:
        """Make the evaluator of the flag definition; no definition is no flags."""
        document = next(iter(documents[TOGGLES.name]), None)
        if document is None:
            return _TogglesChange(self._service, self._file, None, None)
        return _TogglesChange(self._service, self._file, document.content, Evaluator(document.value))


@dataclass(frozen=True, slots=True)
class _TogglesChange:
    service: ToggleService
    file: FlagdFile
    definition: bytes | None
    evaluator: Evaluator | None

    def write(self) -> None:
        self.file.write(self.definition)

    def withdraw(self) -> None:
        self.file.remove()

    async def switch(self) -> Mapping[str, object]:
        self.service.replace(self.evaluator)
        return {"toggles": len(self.service.keys)}


class CampaignsEffect:
    """Campaigns go to the collector, and an event says which are in force from then on."""

    def __init__(self, collector: Collector, outbox: Outbox) -> None:
        self._collector = collector
        self._outbox = outbox

    def prepare(self, documents: Documents) -> Change:
        """Take the campaigns, which are parsed already."""
        return _CampaignsChange(
            self._collector, self._outbox, tuple(document.value for document in documents[CAMPAIGN.name])
        )


@dataclass(frozen=True, slots=True)
class _CampaignsChange:
    collector: Collector
    outbox: Outbox
    campaigns: tuple[Campaign, ...]

    def write(self) -> None:
        """Write nothing: the push store has the documents."""

    def withdraw(self) -> None:
        """Remove nothing: no file names the campaigns."""

    async def switch(self) -> Mapping[str, object]:
        # The collector flushes the open increment first, so the counts of frames say exactly where the campaigns begin.
        before = await self.collector.set_campaigns(self.campaigns)
        # The collector leaves out campaigns that are suspended.
        names = [f"{campaign.name}@{campaign.revision}" for campaign in self.collector.campaigns]
        self.outbox.add_event(_campaigns_event(names, before))
        return {"campaigns": names}


def _campaigns_event(names: Sequence[str], before: Mapping[str, int]) -> Event:
    """Return the event that names the campaigns in force from here on, as far as there is room.

    `before` are the numbers of frames of each bus that came before (`frames.<bus>`), so that a receiver knows to the
    frame where they begin.
    """
    fields: dict[str, str | int | float | bool] = {"campaigns": ",".join(names)[:_NAMES_LETTERS]}
    fields |= {f"frames.{bus}": count for bus, count in sorted(before.items())}
    return Event(time.time_ns() // 1_000, "campaigns_in_force", fields)
