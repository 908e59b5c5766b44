"""Change the running agent by pushed documents.  Each kind of document has one effect."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from agent.formats.down.campaign import Campaign
from agent.formats.down.documents import CAMPAIGN, TOGGLES, Documents
from agent.formats.down.toggles import union
from agent.formats.up.columns import Event
from agent.formats.up.limits import MAX_LABEL_CHARS
from agent.serve.current_flags import CurrentFlags, Flags
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox

_NAMES_LETTERS: Final = 2_000
"""The maximum length of the list of campaign names in one event.

An event must fit one batch, which may have only 4,096 bytes.
"""


class Change(Protocol):
    """Holds a change of the agent that has been prepared from the documents of one kind, but not yet made."""

    def write(self) -> None:
        """Write the files of this change.  Blocking.

        Raises: Transient if the disk refuses; the earlier files then stay.
        """

    def withdraw(self) -> None:
        """Remove the files that `write` could not replace.

        An earlier process left these files, and they would contradict this change.  Blocking; raises nothing.
        """

    async def switch(self) -> Mapping[str, object]:
        """Make the change in the running agent, and return facts for the log.  This method cannot fail."""


class Effect(Protocol):
    """Prepares the change that documents of one kind make."""

    def prepare(self, documents: Documents) -> Change:
        """Return the change that `documents` make, without making it.  Blocking; called in a thread.

        Raises: AgentError if the documents cannot be used.
        """


class TogglesEffect:
    """Serves toggles by OFREP, and writes them to flagd's file."""

    def __init__(self, current: CurrentFlags) -> None:
        self._current = current

    def prepare(self, documents: Documents) -> Change:
        """Return the change that puts the flags of all flag definitions in `documents` in force.

        If `documents` has no flag definition, the change leaves no flags in force.
        """
        definitions = [document.value for document in documents[TOGGLES.name]]
        return _TogglesChange(self._current, self._current.prepare(union(definitions) if definitions else None))


class _TogglesChange(msgspec.Struct, frozen=True):
    current: CurrentFlags
    flags: Flags

    def write(self) -> None:
        self.current.write(self.flags)

    def withdraw(self) -> None:
        self.current.withdraw()

    async def switch(self) -> Mapping[str, object]:
        self.current.switch(self.flags)
        return {"toggles": len(self.current.keys)}


class CampaignsEffect:
    """Gives campaigns to the collector, and reports the campaigns in force by an event."""

    def __init__(self, collector: Collector, outbox: Outbox, mark: str = "") -> None:
        """Give campaigns to `collector`, with names that begin with `mark`."""
        self._collector = collector
        self._outbox = outbox
        self._mark = mark

    def prepare(self, documents: Documents) -> Change:
        """Return the change that puts the campaigns of `documents` in force.  The documents are parsed already."""
        campaigns = [document.value for document in documents[CAMPAIGN.name]]
        marked = (msgspec.structs.replace(each, name=marked_name(self._mark, each)) for each in campaigns)
        return _CampaignsChange(self._collector, self._outbox, tuple(marked))


def marked_name(mark: str, campaign: Campaign) -> str:
    """Return the name of `campaign` with `mark` before it, within the limit of the lake's names."""
    name = f"{mark}{campaign.name}"
    # Two long names may begin alike, but two documents never have the same revision.
    end = f"-{campaign.revision}"
    return name if len(name) <= MAX_LABEL_CHARS else name[: MAX_LABEL_CHARS - len(end)] + end


class _CampaignsChange(msgspec.Struct, frozen=True):
    collector: Collector
    outbox: Outbox
    campaigns: tuple[Campaign, ...]

    def write(self) -> None:
        """Write nothing, because the push store has the documents."""

    def withdraw(self) -> None:
        """Remove nothing, because no file names the campaigns."""

    async def switch(self) -> Mapping[str, object]:
        # The collector flushes the open increment first, so the counts of frames say exactly where the campaigns begin.
        before = await self.collector.set_campaigns(self.campaigns)
        # The collector leaves out campaigns that are suspended.
        names = [f"{campaign.name}@{campaign.revision}" for campaign in self.collector.campaigns]
        self.outbox.add_event(_campaigns_event(names, before))
        refused = {each.campaign: each.reason for each in self.collector.refused_campaigns}
        return {"campaigns": names} | ({"refused": refused} if refused else {})


def _campaigns_event(names: Sequence[str], before: Mapping[str, int]) -> Event:
    """Return the event that names the campaigns in force from now on.  A list that is too long for an event is cut off.

    `before` has, for each bus, the number of frames that came before these campaigns took effect.  The event carries
    each number in a field `frames.<bus>`.  A receiver thus knows the first frame to which the campaigns apply.
    """
    fields: dict[str, str | int | float | bool] = {"campaigns": ",".join(names)[:_NAMES_LETTERS]}
    fields |= {f"frames.{bus}": count for bus, count in sorted(before.items())}
    return Event(time.time_ns() // 1_000, "campaigns_in_force", fields)
