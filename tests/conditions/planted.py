"""Slow evaluators with one planted fault each.  A comparison that finds no difference with one of them is blind."""

import math
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tests.conditions.evaluation import Evaluator, Memory, Value
from tests.conditions.language import Node
from tests.conditions.machine import SET_BACK_US, Open, Row, Sample, SlowCampaign, Stream


class WiderTolerance(SlowCampaign):
    """Equality holds at a difference of exactly 0.001 too."""

    class _Evaluator(Evaluator):
        def equal(self, left: float, right: float) -> bool:
            return abs(left - right) <= 0.001

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class InfinityEqualsItself(SlowCampaign):
    class _Evaluator(Evaluator):
        def equal(self, left: float, right: float) -> bool:
            return left == right or super().equal(left, right)

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class NanIsFalse(SlowCampaign):
    class _Evaluator(Evaluator):
        def truth(self, value: Value) -> bool:
            return super().truth(value) and not (isinstance(value, float) and math.isnan(value))

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class ShortCut(SlowCampaign):
    """An undefined operand of || counts as false."""

    class _Evaluator(Evaluator):
        def value(self, node: Node, memory: Memory) -> Value:
            if node.name == "||" and node.kind == "operator":
                values = [self.value(operand, memory) for operand in node.operands]
                if any(value is not None and self.truth(value) for value in values):
                    return True
                return None if None in values else False
            return super().value(node, memory)

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class UndefinedIsLow(SlowCampaign):
    """MULTI_RISING_EDGE_TRIGGER takes undefined for low."""

    class _Evaluator(Evaluator):
        def rising(self, node: Node, operands: list[Value]) -> bool:
            return super().rising(node, [False if value is None else value for value in operands])

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class FirstEdgeCounts(SlowCampaign):
    """The first evaluation of MULTI_RISING_EDGE_TRIGGER may give true."""

    class _Evaluator(Evaluator):
        def rising(self, node: Node, operands: list[Value]) -> bool:
            self._high.setdefault(node.first, [False] * (len(operands) // 2))
            return super().rising(node, operands)

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class PowerMayOverflow(SlowCampaign):
    class _Evaluator(Evaluator):
        def power(self, base: float, exponent: float) -> float | None:
            result = super().power(base, exponent)
            return math.inf if result is None else result

    def make_evaluator(self, tree: Node) -> Evaluator:
        return self._Evaluator(tree)


class NothingMarkedSent(SlowCampaign):
    """A closing does not mark what it sends."""

    def mark_sent(self, sample: Sample) -> None:
        pass


class RingOneLarger(SlowCampaign):
    def put_into_ring(self, stream: Stream, sample: Sample) -> None:
        stream.ring.append(sample)
        del stream.ring[: -stream.rule.ring - 1]


class EdgeForgotten(SlowCampaign):
    """An edge within the interval is swallowed, not deferred."""

    def judge(self, row: Row) -> None:
        before = self._was_true
        super().judge(row)
        over = self.clock_us >= self._last_trigger_us + self.campaign.interval_us
        if not over and before is False and self._evaluator.is_true(self):
            self._was_true = True


class EdgeKeptWhileOpen(SlowCampaign):
    """An edge while a collection is open is deferred, not swallowed."""

    def judge(self, row: Row) -> None:
        open_before, before = self._open, self._was_true
        super().judge(row)
        if open_before is not None and not before:
            self._was_true = False


class FiresFromTheStart(SlowCampaign):
    """`wasTrue` is at first false."""

    def take(self, row: Row) -> None:
        if self._clock_us is None:
            self._was_true = False
        super().take(row)


class ActivationIsNoTrigger(SlowCampaign):
    """The interval does not count from activation."""

    def set_clock(self, t_us: int) -> None:
        first = self._clock_us is None
        super().set_clock(t_us)
        if first:
            self._last_trigger_us = -(10**18)


class ClosesAtItsEnd(SlowCampaign):
    """A collection ends before the frame at its end."""

    def is_over(self, collection: Open) -> bool:
        return self.clock_us >= collection.end_us


class ClockIsTheFrames(SlowCampaign):
    """The clock is the frame's own time, not the largest."""

    def set_clock(self, t_us: int) -> None:
        super().set_clock(t_us)
        self._clock_us = t_us


class SetClockKeepsTheInterval(SlowCampaign):
    """A clock that was set does not set the time of the last trigger."""

    def set_clock(self, t_us: int) -> None:
        before, first = self._last_trigger_us, self._clock_us is None
        super().set_clock(t_us)
        if not first:
            self._last_trigger_us = before


class SetAtAMinute(SlowCampaign):
    """The clock counts as set at exactly 60 s."""

    def set_clock(self, t_us: int) -> None:
        if self._clock_us is not None and t_us == self._clock_us - SET_BACK_US:
            self._clock_us += 1
        super().set_clock(t_us)


class ThinnedSeenByCondition(SlowCampaign):
    """The condition sees samples that thinning does not keep."""

    def take_sample(self, row: Row, signal: str, raw: int, value: float) -> None:
        super().take_sample(row, signal, raw, value)
        name = f"{row.message}.{signal}"
        if name in self._variables and (name not in self._newest or self._newest[name].record["t_us"] != row.t_us):
            self._newest[name] = Sample({"t_us": row.t_us}, value)


class ChangeAgainstTheLastKept(SlowCampaign):
    """`onChange` compares with the last kept sample, not with the one before."""

    def keeps(self, stream: Stream, t_us: int, raw: int) -> bool:
        before = stream.last_raw
        kept = super().keeps(stream, t_us, raw)
        if not kept:
            stream.last_raw = before
        return kept


class SendersTogether(SlowCampaign):
    """The senders of a message share a ring."""

    def take_sample(self, row: Row, signal: str, raw: int, value: float) -> None:
        key = (row.bus, f"{row.message}.{signal}")
        shared = next((stream for (*place, _), stream in self._streams.items() if tuple(place) == key), None)
        if shared is not None:
            self._streams.setdefault((*key, row.source_address), shared)
        super().take_sample(row, signal, raw, value)


class ExpiryIncluded(SlowCampaign):
    def is_within(self, t_us: int) -> bool:
        return self.campaign.start_us <= t_us <= self.campaign.expiry_us


class OnlyKeptFramesAreOwn(SlowCampaign):
    """A frame of which nothing is kept is not looked at."""

    def judge(self, row: Row) -> None:
        if any(sample.record["t_us"] == row.t_us for sample in self._newest.values()):
            super().judge(row)


class PatternBeforeExact(SlowCampaign):
    """The first entry that matches a signal holds, exact or not."""

    def __init__(self, document: Mapping[str, Any], known: Collection[str]) -> None:
        super().__init__(document, known)
        for signal in self._known:
            names = (signal, f"Vehicle.{signal}")
            rules = self.campaign.rules
            self._rules[signal] = next((rule for rule in rules if any(fnmatchcase(n, rule.name) for n in names)), None)


class ExpiryNotTheEnd(SlowCampaign):
    """A collection may seem to end after the campaign."""

    def trigger(self, row: Row) -> None:
        super().trigger(row)
        self.records[-1]["until_us"] = self.clock_us + self.campaign.duration_us


class OwnNamesLost(SlowCampaign):
    """The names of the trigger itself give no sample."""

    def judge(self, row: Row) -> None:
        before = self._open
        super().judge(row)
        if before is None and self.records and self.records[-1].get("signal") == "MultiRisingEdgeTrigger":
            self.records.pop()


PLANTED: tuple[type[SlowCampaign], ...] = (
    WiderTolerance,
    InfinityEqualsItself,
    NanIsFalse,
    ShortCut,
    UndefinedIsLow,
    FirstEdgeCounts,
    PowerMayOverflow,
    NothingMarkedSent,
    PatternBeforeExact,
    ExpiryNotTheEnd,
    OwnNamesLost,
    RingOneLarger,
    EdgeForgotten,
    EdgeKeptWhileOpen,
    FiresFromTheStart,
    ActivationIsNoTrigger,
    ClosesAtItsEnd,
    ClockIsTheFrames,
    SetClockKeepsTheInterval,
    SetAtAMinute,
    ThinnedSeenByCondition,
    ChangeAgainstTheLastKept,
    SendersTogether,
    ExpiryIncluded,
    OnlyKeptFramesAreOwn,
)
