"""Plays one condition-based campaign row by row, as sections 3 to 7 of the specification say.

This is the oracle of the agent's evaluator, with which it shares no code.  It is slow and simple: every sample is an
object, every ring a list.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from json import dumps
from typing import Any, NamedTuple

from tests.conditions.campaign import Campaign, Rule, meaning, read_campaign
from tests.conditions.evaluation import Evaluator
from tests.conditions.language import Node
from tests.conditions.meaning import refuse_unknown

SET_BACK_US = 60_000_000
Record = dict[str, Any]


class Row(NamedTuple):
    """A decoded frame; `samples` has the (signal, raw, value) that it carries."""

    t_us: int
    bus: str
    message: str
    source_address: int | None
    samples: tuple[tuple[str, int, float], ...]


@dataclass
class Sample:
    record: Record
    value: float
    is_sent: bool = False


@dataclass
class Stream:
    """What one sender says of one signal, if the campaign collects it."""

    rule: Rule
    ring: list[Sample] = field(default_factory=list)
    last_raw: int | None = None
    last_kept_us: int | None = None


@dataclass
class Open:
    """The open collection."""

    number: int
    end_us: int


class SlowCampaign:
    """Takes rows with `take`, and has the result in `records` after `end`.  `campaign` is what the document says.

    `known` has the `Message.Signal` of all databases.
    """

    def __init__(self, document: Mapping[str, Any], known: Collection[str]) -> None:
        """Raises: Refused if the document is refused."""
        self.campaign: Campaign = read_campaign(document)
        tree = self.campaign.tree
        self._known = frozenset(known)
        refuse_unknown(tree, lambda name: meaning(name, self._known) is not None)
        self._evaluator = self.make_evaluator(tree)
        self._variables = {meaning(name, self._known) for name in _names(tree)} - {None}
        self._rules = {signal: self.campaign.rule_of(signal) for signal in self._known}
        self._streams: dict[tuple[str, str, int | None], Stream] = {}
        self._newest: dict[str, Sample] = {}
        self._clock_us: int | None = None
        self._last_trigger_us = 0
        self._was_true = True
        self._number = 0
        self._open: Open | None = None
        self.records: list[Record] = []

    def make_evaluator(self, tree: Node) -> Evaluator:
        return Evaluator(tree)

    # ---- what the condition asks (`evaluation.Memory`)

    def newest(self, name: str) -> float | None:
        sample = self._sample_of(name)
        return None if sample is None else sample.value

    def is_null(self, name: str) -> bool | None:
        if meaning(name, self._known) is None:
            return None
        sample = self._sample_of(name)
        return sample is None or sample.is_sent

    def _sample_of(self, name: str) -> Sample | None:
        signal = meaning(name, self._known)
        return None if signal is None else self._newest.get(signal)

    # ---- one frame

    def take(self, row: Row) -> None:
        """Take one decoded frame, in the order of the bus."""
        if not self.campaign.running or not self.is_within(row.t_us) or not self.is_own(row):
            return
        self.set_clock(row.t_us)
        if self._open is not None and self.is_over(self._open):
            self.close()
        for sample in row.samples:
            self.take_sample(row, *sample)
        self.judge(row)
        if self._open is not None and self.campaign.duration_us == 0:
            self.close()

    def end(self) -> None:
        """Close what is open at the end of the frames."""
        if self._open is not None:
            self.close()

    def is_within(self, t_us: int) -> bool:
        return self.campaign.start_us <= t_us < self.campaign.expiry_us

    def is_own(self, row: Row) -> bool:
        names = [f"{row.message}.{signal}" for signal, _, _ in row.samples]
        return any(self._rules[name] is not None or name in self._variables for name in names)

    def set_clock(self, t_us: int) -> None:
        if self._clock_us is None:
            self._clock_us = self._last_trigger_us = t_us
        elif t_us < self._clock_us - SET_BACK_US:
            if self._open is not None:
                self.close()
            self._clock_us = self._last_trigger_us = t_us
        else:
            self._clock_us = max(self._clock_us, t_us)

    def is_over(self, collection: Open) -> bool:
        return self.clock_us > collection.end_us

    @property
    def clock_us(self) -> int:
        assert self._clock_us is not None, "the clock is set by the first own frame"
        return self._clock_us

    def take_sample(self, row: Row, signal: str, raw: int, value: float) -> None:
        name = f"{row.message}.{signal}"
        rule = self._rules[name]
        if rule is None and name not in self._variables:
            return
        record = {
            "k": "sample",
            "t_us": row.t_us,
            "bus": row.bus,
            "message": row.message,
            "signal": signal,
            "raw": raw,
            "value": value if math.isfinite(value) else str(value),
        }
        if row.source_address is not None:
            record["source_address"] = row.source_address
        sample = Sample(record, value)
        if rule is not None:
            key = (row.bus, name, row.source_address)
            stream = self._streams.setdefault(key, Stream(rule))
            if not self.keeps(stream, row.t_us, raw):
                return
            self.put_into_ring(stream, sample)
        self._newest[name] = sample

    def keeps(self, stream: Stream, t_us: int, raw: int) -> bool:
        changed = stream.last_raw is None or raw != stream.last_raw
        stream.last_raw = raw
        if stream.rule.on_change and not changed:
            return False
        last_us, interval_us = stream.last_kept_us, stream.rule.interval_us
        # Interval 0 keeps what steps back, too.
        if last_us is not None and interval_us and last_us - SET_BACK_US <= t_us < last_us + interval_us:
            return False
        stream.last_kept_us = t_us
        return True

    def put_into_ring(self, stream: Stream, sample: Sample) -> None:
        stream.ring.append(sample)
        del stream.ring[: -stream.rule.ring]

    def judge(self, row: Row) -> None:
        """Evaluate the condition, and begin a collection if it fires."""
        is_true = self._evaluator.is_true(self)
        if not is_true:
            self._was_true = False
        elif self.clock_us >= self._last_trigger_us + self.campaign.interval_us:
            if self._open is None and not (self.campaign.rising_edge and self._was_true):
                self.trigger(row)
            self._was_true = True
        names = self._evaluator.names
        if names and self._open is not None and self.campaign.collects_edge_names:
            self.add_names(row, self._open, names)

    def trigger(self, row: Row) -> None:
        self._number += 1
        self._last_trigger_us = self.clock_us
        end_us = min(self.clock_us + self.campaign.duration_us, self.campaign.expiry_us)
        self._open = Open(self._number, end_us)
        record = {"k": "trigger", "n": self._number, "t_us": row.t_us, "until_us": end_us}
        if self._evaluator.names:
            record["names"] = list(self._evaluator.names)
        self.records.append(record)

    def add_names(self, row: Row, collection: Open, names: list[str]) -> None:
        self.records.append(
            {
                "k": "sample",
                "n": collection.number,
                "t_us": row.t_us,
                "bus": "",
                "message": "",
                "signal": "MultiRisingEdgeTrigger",
                "raw": None,
                "value": dumps(names, separators=(",", ":")),
            }
        )

    def close(self) -> None:
        """Send what the rings hold and was not sent yet."""
        assert self._open is not None, "only an open collection is closed"
        for stream in self._streams.values():
            for sample in stream.ring:
                if not sample.is_sent:
                    self.records.append(sample.record | {"n": self._open.number})
                    self.mark_sent(sample)
        self._open = None

    def mark_sent(self, sample: Sample) -> None:
        sample.is_sent = True


def _names(node: Node) -> set[str]:
    own = {node.name} if node.kind in ("variable", "isNull") else set()
    return own.union(*(_names(operand) for operand in node.operands))
