"""Collects samples for one campaign.  A campaign is the first kind of consumer.  This file is pure.

A campaign ignores samples outside of the time from its start to its expiry.  Its rules choose among the other samples
(`thinning`).  The chosen samples stay in the open window (`open_window`) until the window closes.  With J1939, a signal
is collected separately for each sender, because one control unit must not hide another.  The number of senders is
limited (`senders`).

A window keeps at most the `max_samples` newest samples of a signal.  The campaign asks for this limit, so discarding
the older samples is not a loss.  The limit holds for each checkpoint of an open window as well.  If a crash leaves
only the checkpoints of a window, they may together hold more than `max_samples`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.down.campaign import Campaign, SignalRule
from agent.formats.up.columns import Clock, ColumnGroup, Described, Window
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.mapped import MappedSignals
from agent.telemetry.collect.names import Place, SignalNames, is_glob
from agent.telemetry.collect.open_window import HeldSamples, Samples
from agent.telemetry.collect.senders import MAX_SENDERS, Key, Senders, key_of
from agent.telemetry.collect.signal_tables import SignalTables, Wants, all_wants
from agent.telemetry.collect.thinning import Rows, Rule, Thinning
from agent.telemetry.losses import Loss

_INT64_MAX: Final = np.iinfo(np.int64).max


def rules_of(campaign: Campaign, names: SignalNames) -> dict[Place, SignalRule]:
    """Return the rule of each signal that the campaign collects, in order of tables.

    A rule that names the signal itself takes precedence over globs.  Among rules of the same kind, the first one takes
    precedence.
    """
    exact: dict[Place, SignalRule] = {}
    globs: dict[Place, SignalRule] = {}
    for rule in campaign.rules:
        for place in names.find(rule.name):
            exact.setdefault(place, rule)
        if is_glob(rule.name):
            for place in names.find_matching(rule.name):
                globs.setdefault(place, rule)
    return dict(sorted((globs | exact).items()))


class _Asked(msgspec.Struct, frozen=True, eq=False):
    """The signals of one table that a campaign collects, and their rules.

    `first_number` is the index of the first of these signals in the campaign's list of signals.
    """

    indices: tuple[int, ...]
    signals: tuple[Described, ...]
    first_number: int
    max_samples: tuple[int | None, ...]
    rules: tuple[Rule, ...]


@dataclass(slots=True, eq=False)
class _Collected:
    """The state of collecting from one signal table and sender.

    `layout` says which signals the rows of the last block belonged to, by their indices in the table.  `rows` (S,) says
    in which row of that block each of the S collected signals was.  Both may change when other campaigns come or go,
    because the decoder then changes.  If `as_is` is set, every sample of every row is kept, so blocks are held
    unchanged.
    """

    asked: _Asked
    thinning: Thinning
    held: HeldSamples
    members: tuple[int, ...]
    layout: tuple[int, ...] = ()
    rows: Rows = field(default_factory=lambda: np.empty(0, np.intp))
    as_is: bool = False

    def lay_out(self, layout: tuple[int, ...]) -> None:
        self.layout = layout
        self.rows = np.array([layout.index(index) for index in self.asked.indices], np.intp)
        self.as_is = layout == self.asked.indices and [rule.keeps_all for rule in self.asked.rules] == [True]


class CampaignCollector:
    """Collects the signals of one campaign from `tables`.

    When a window closes, intervals and last values carry over to the next window, so no rule starts afresh.
    """

    eager = False

    def __init__(self, campaign: Campaign, tables: SignalTables, *, max_senders: int = MAX_SENDERS) -> None:
        self._campaign = campaign
        by_table: dict[int, list[tuple[int, SignalRule]]] = {}
        for place, rule in rules_of(campaign, tables.names).items():
            by_table.setdefault(place.table, []).append((place.signal, rule))
        self._asked: dict[int, _Asked] = {}
        described: list[Described] = []
        for number, ruled in by_table.items():
            asked = self._asked[number] = _asked(tables, number, ruled, len(described))
            described += asked.signals
        self._described = tuple(described)
        # A rule asks for one path, because each path has a signal table of its own.
        self._mapped = MappedSignals(
            tables, {number: asked.rules[0] for number, asked in self._asked.items() if number in tables.mapped}
        )
        direct = {number: asked.indices for number, asked in self._asked.items() if number not in tables.mapped}
        self._wants = all_wants([direct, self._mapped.wants])
        self._senders = Senders(campaign.name, max_senders)
        self._collected: dict[Key, _Collected] = {}
        self._in_order: list[_Collected] = []  # by table and sender; empty if they must be sorted again
        self._checkpoint = 0  # number of the open window's next checkpoint

    @property
    def campaign(self) -> Campaign:
        """The document that says what is collected, and how."""
        return self._campaign

    @property
    def wants(self) -> Wants:
        """Return the signals that the campaign collects."""
        return self._wants

    @property
    def described(self) -> tuple[Described, ...]:
        """Return all signals that the campaign may collect, in the order in which its windows number them.

        The catalogue is made from this list.
        """
        return self._described

    @property
    def samples(self) -> int:
        """Count the samples that the open window holds."""
        return sum(collected.held.samples for collected in self._collected.values())

    @property
    def blocks(self) -> int:
        """Count the memory blocks that the open window holds; a test checks their limit."""
        return sum(collected.held.blocks for collected in self._collected.values())

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> None:
        """Keep the samples that the campaign asks for.

        A block must hold every signal of its table that the campaign wants.
        """
        asked = self._asked
        blocks = [*blocks, *self._mapped.blocks(blocks)]
        blocks = [block for block in blocks if block.table in asked and block.t_ns.size]
        if not blocks:
            return
        t_ns = np.concatenate([block.t_ns for block in blocks])
        all_active = self._campaign.start_ns <= t_ns.min() and t_ns.max() < self._campaign.expiry_ns
        t_us = t_ns // 1_000
        self._senders.admit(blocks)
        stop = 0
        for block in blocks:
            start, stop = stop, stop + len(block.t_ns)
            key = key_of(block)
            if not self._senders.has_place(key):
                self._turn_away(block)
                continue
            collected = self._collected.get(key)
            if collected is None:
                collected = self._collected[key] = self._begin(block)
                self._in_order = []
            if block.signals != collected.layout:
                collected.lay_out(block.signals)
            if all_active and block.valid is None and collected.as_is:
                samples = Samples(t_us[start:stop], block.raw, collected.members, self._checkpoint)
                collected.held.add(samples)
            else:
                self._collect(collected, block, t_us[start:stop])

    def checkpoint_window(self, *, start_us: int, end_us: int, clock: Clock) -> Window:
        """Return the samples since the last checkpoint as a window of their own, which may be empty."""
        return self._window(start_us, end_us, clock, self._checkpoint)

    def checkpointed(self) -> None:
        """Record that the last result of `checkpoint_window` is durable.  The next checkpoint begins after it."""
        self._checkpoint += 1

    def close(self, *, start_us: int, end_us: int, clock: Clock) -> Window:
        """Return the open window, which may be empty, and open a new one."""
        window = self._window(start_us, end_us, clock, 0)
        for collected in self._collected.values():
            collected.held.clear()
        for key in self._senders.close():
            del self._collected[key]
            self._in_order = []
        self._checkpoint = 0
        return window

    def take_losses(self) -> tuple[Loss, ...]:
        """Return what was not collected because too many senders were there, since the last call."""
        return self._senders.take_losses()

    def _window(self, start_us: int, end_us: int, clock: Clock, first_checkpoint: int) -> Window:
        groups: list[ColumnGroup] = []
        self._in_order = self._in_order or [self._collected[key] for key in sorted(self._collected)]
        for collected in self._in_order:
            groups += collected.held.groups(first_checkpoint)
        return Window(self._campaign.name, self._campaign.revision, start_us, end_us, clock, tuple(groups))

    def _begin(self, block: SignalBlock) -> _Collected:
        asked = self._asked[block.table]
        count = len(asked.indices)
        return _Collected(
            asked,
            Thinning(asked.rules, count),
            HeldSamples(asked.signals, asked.first_number, asked.max_samples, block.source_address),
            tuple(range(count)),
        )

    def _turn_away(self, block: SignalBlock) -> None:
        active = active_rows(block.t_ns, self._campaign.start_ns, self._campaign.expiry_ns)
        if len(active):
            info, _ = self._asked[block.table].signals[0]
            self._senders.turn_away(info.bus, block.t_ns[active] // 1_000)

    def _collect(self, collected: _Collected, block: SignalBlock, t_us: NDArray[np.int64]) -> None:
        active = active_rows(block.t_ns, self._campaign.start_ns, self._campaign.expiry_ns)
        for members, samples in collected.thinning.choose(block, collected.rows, active):
            rows = collected.rows[list(members)]
            raw = block.raw[rows[:, None], samples]
            collected.held.add(Samples(t_us[samples], raw, members, self._checkpoint))


def active_rows(t_ns: NDArray[np.int64], start_ns: int, expiry_ns: int) -> Rows:
    """Return the indices of the times that lie from the start (included) to the expiry (excluded) of a campaign."""
    if start_ns <= t_ns.min() and t_ns.max() < expiry_ns:
        return np.arange(len(t_ns))
    # Expiry times may exceed int64 (FleetWise's default is the year 9999), and numpy cannot compare such numbers.
    return np.flatnonzero((t_ns >= start_ns) & (t_ns < min(expiry_ns, _INT64_MAX)))


def _asked(tables: SignalTables, number: int, ruled: Sequence[tuple[int, SignalRule]], first_number: int) -> _Asked:
    by_rule: dict[tuple[int, bool], list[int]] = {}
    for member, (_, rule) in enumerate(ruled):
        by_rule.setdefault((rule.interval_ns, rule.on_change), []).append(member)
    signals = tables.tables[number].signals
    return _Asked(
        tuple(index for index, _ in ruled),
        tuple(signals[index] for index, _ in ruled),
        first_number,
        tuple(rule.max_samples for _, rule in ruled),
        tuple(Rule(*how, np.array(members, np.intp)) for how, members in by_rule.items()),
    )
