"""Collects for one condition-based campaign.  This file is pure.

    signal blocks -> own frames, thinned samples -> values of variables -> condition -> triggers
                                        |                                                 |
                                        +-> rings ------------- a collection closes ------+-> what is sent

The result depends only on the campaign, the databases and the frames in their order, not on how the frames are cut into
blocks.  A condition with isNull depends on what was sent, so it is evaluated again from the frame at which a collection
closes.  The stretches that are evaluated begin short and grow, so the work is bounded by the number of frames and
triggers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.formats.down.campaign import Campaign
from agent.formats.down.conditions.scheme import EDGE_NAMES
from agent.formats.down.conditions.tree import IsNull, nodes, variables
from agent.formats.up.columns import Described
from agent.formats.up.losses import Reason
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.campaign import active_rows
from agent.telemetry.collect.conditions.collections import CampaignRings, Collection
from agent.telemetry.collect.conditions.evaluator import DEFINED, UNDEFINED, Evaluator, Inputs
from agent.telemetry.collect.conditions.intake import Intake, signals_of
from agent.telemetry.collect.conditions.triggers import (
    Closed,
    Edges,
    Frames,
    Opened,
    State,
    Step,
    Trigger,
    Walk,
    between_settings,
)
from agent.telemetry.collect.conditions.variables import LatestValue, Spread
from agent.telemetry.collect.mapped import MappedSignals
from agent.telemetry.collect.senders import Senders, key_of
from agent.telemetry.collect.signal_tables import SignalTables, Wants, all_wants
from agent.telemetry.losses import Loss, merge

RING_SENDERS: Final = 16
"""The number of J1939 senders of each message for which a campaign claims memory, shared by all its messages."""
_SENDER_BYTES: Final = 4_000
"""The memory that a message of a sender takes besides its samples."""
MAX_EDGES: Final = 50_000
"""The most samples of names that an open collection holds: a quarter of an hour with an edge at each frame of 50 Hz."""
_SHORTEST: Final = 16
"""A stretch with isNull begins with this many frames, which take hardly longer to evaluate than one."""


class ConditionCollector:
    """Collects the signals of one condition-based campaign from `tables`."""

    eager = True

    def __init__(self, campaign: Campaign, tables: SignalTables, *, ring_senders: int = RING_SENDERS) -> None:
        condition = campaign.condition
        assert condition is not None
        self._campaign = campaign
        self._signals = signals_of(campaign, tables)
        taken = self._signals.taken
        # A path has a table of its own, and thinning by the same rule once more keeps all of its samples.
        self._mapped = MappedSignals(
            tables, {number: taken[number].rules[0] for number in taken if number in tables.mapped}
        )
        direct = {number: each.indices for number, each in taken.items() if number not in tables.mapped}
        self._wants = all_wants([direct, self._mapped.wants])
        self._intake = Intake(campaign, self._signals)
        self._rings = CampaignRings(self._signals)
        sizes = {number: each.ring_bytes + _SENDER_BYTES for number, each in taken.items()}
        shared = sum(size for number, size in sizes.items() if number in tables.by_sender) * ring_senders
        self._senders = Senders(campaign.name, shared, sizes)
        self.ring_bytes = shared + sum(size for number, size in sizes.items() if number not in tables.by_sender)
        """The most memory that the campaign's rings take."""
        self._evaluator = Evaluator(condition.tree)
        self._memory = self._evaluator.begin()
        self._asks_null = tuple({node.variable.name for node in nodes(condition.tree) if isinstance(node, IsNull)})
        self._latest = {
            name: LatestValue(sendable=name in self._signals.sendable)
            for name in variables(condition.tree)
            if name not in self._signals.unknown
        }
        self._state = State()
        self._opened: Trigger | None = None
        self.newest_ns = 0
        """The time of the newest frame with a signal of the campaign, also before its start and after its expiry."""
        self._walk = Walk(condition, campaign.expiry_ns, self._evaluator.names, self._state)
        self._sends_edges = any(rule.name == EDGE_NAMES for rule in campaign.rules)
        self._edges: list[Edges] = []
        self._checkpointed_edges = 0
        self._lost_edges: Loss | None = None
        self._closed: list[Collection] = []
        self._closed_at = -1  # place of the last closing in the present block, or -1

    @property
    def campaign(self) -> Campaign:
        """The document that says what is collected, and when."""
        return self._campaign

    @property
    def wants(self) -> Wants:
        """Return the signals that the campaign collects or names in its condition."""
        return self._wants

    @property
    def described(self) -> tuple[Described, ...]:
        """Return all signals that the campaign may send, in the order in which its samples number them."""
        return self._signals.described

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> None:
        """Take in samples that were delivered together, evaluate the condition, and close collections.

        A block must hold every signal of its table that the campaign wants.
        """
        admitted = self._admitted([*blocks, *self._mapped.blocks(blocks)])
        if admitted:
            self.newest_ns = max(int(block.t_ns[-1]) for block in admitted)
        own = self._intake.take(admitted)
        count = len(own.t_ns)
        if not count:
            return
        self._rings.begin_block(own)
        self._closed_at = -1
        spreads = {name: latest.spread(own.variables.get(name, ()), count) for name, latest in self._latest.items()}
        for frames, was_set in between_settings(self._state, own.t_ns):
            if was_set:
                for step in self._walk.set_clock(frames):
                    self._carry_out(step)
            self._evaluate(frames, spreads)
        self._rings.end_block()
        for name, latest in self._latest.items():
            latest.end_block(spreads[name], self._closed_at)

    @property
    def open(self) -> Trigger | None:
        """Return the trigger of the open collection, or None."""
        return self._state.open

    @property
    def clock_ns(self) -> int:
        """Return the largest time of the own frames since the clock was last set back, or 0 before the first one."""
        return self._state.clock_ns or 0

    def checkpoint(self) -> Collection | None:
        """Return what the open collection holds and no checkpoint has, or None if no collection is open."""
        trigger = self._state.open
        if trigger is None:
            return None
        return Collection(trigger, self._rings.fresh(trigger), tuple(self._edges[self._checkpointed_edges :]))

    def checkpointed(self) -> None:
        """Note that the last result of `checkpoint` is durable."""
        self._rings.checkpointed()
        self._checkpointed_edges = len(self._edges)

    def close(self) -> None:
        """Close the open collection with what there is, because no more frames come."""
        if self._state.open is not None:
            self._carry_out(Closed(0))
            self._state.open = None
            for latest in self._latest.values():
                latest.sent()

    def take_closed(self) -> list[Collection]:
        """Return the collections that were closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def take_losses(self) -> tuple[Loss, ...]:
        """Return what was not collected since the last call: from too many senders, or names of too many edges."""
        lost, self._lost_edges = self._lost_edges, None
        return (*self._senders.take_losses(), *(() if lost is None else (lost,)))

    def _lose_edges(self, edges: Edges) -> None:
        t_us = edges.t_ns // 1_000
        detail = f"a collection holds the names of at most {MAX_EDGES} evaluations"
        loss = Loss(Reason.MEMORY_FULL, campaign=self._campaign.name, detail=detail, samples=1)
        loss = replace(loss, first_t_us=t_us, last_t_us=t_us)
        self._lost_edges = loss if self._lost_edges is None else merge(self._lost_edges, loss)

    def _admitted(self, blocks: Sequence[SignalBlock]) -> list[SignalBlock]:
        blocks = [block for block in blocks if block.table in self._signals.taken and len(block)]
        self._senders.admit(blocks)
        admitted = []
        for block in blocks:
            if self._senders.has_place(key_of(block)):
                admitted.append(block)
                continue
            active = active_rows(block.t_ns, self._campaign.start_ns, self._campaign.expiry_ns)
            if len(active):
                info, _ = self._signals.taken[block.table].signals[0]
                self._senders.turn_away(info.bus, block.t_ns[active] // 1_000)
        return admitted

    def _evaluate(self, frames: Frames, spreads: dict[str, Spread]) -> None:
        place, length = frames.first, _SHORTEST
        while place < frames.stop:
            stop = min(frames.stop, place + length) if self._asks_null else frames.stop
            evaluated = self._evaluator.evaluate(self._inputs(spreads, place, stop), self._memory)
            reached, length = stop, length * 2
            for step, following in self._walk.steps(frames, evaluated, place):
                self._carry_out(step)
                if isinstance(step, Closed) and self._asks_null:
                    reached, length = following, _SHORTEST
                    break
            if reached > place:
                self._memory = evaluated.high[:, reached - place - 1].copy()
            place = reached

    def _inputs(self, spreads: dict[str, Spread], start: int, stop: int) -> Inputs:
        unknown = dict.fromkeys(self._signals.unknown, UNDEFINED)
        values = {name: spread.part(start, stop) for name, spread in spreads.items()}
        nulls = {}
        for name in self._asks_null:
            nulls[name] = UNDEFINED
            if name in spreads:
                null = self._latest[name].null(spreads[name], start, stop, self._closed_at)
                nulls[name] = null, DEFINED
        return Inputs(stop - start, unknown | values, nulls)

    def _carry_out(self, step: Step) -> None:
        if isinstance(step, Opened):
            self._opened = step.trigger
            self._edges = []
            self._checkpointed_edges = 0
        elif isinstance(step, Edges):
            if self._sends_edges and len(self._edges) < MAX_EDGES:
                self._edges.append(step)
            elif self._sends_edges:
                self._lose_edges(step)
        elif self._opened is not None:
            self._rings.enter(step.place)
            self._closed.append(Collection(self._opened, self._rings.take(self._opened), tuple(self._edges)))
            self._closed_at = step.place
