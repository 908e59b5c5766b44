"""What a campaign keeps of what was decoded.  Pure.

Samples of a signal come in bus order, in increments of any size; what is kept does not depend on how they were cut.
Of J1939 the signal of each sender counts for itself: one control unit must not hide another.
A sample outside the campaign's time does not exist for it.  Of the others, with `onChange` those are candidates whose
raw value differs from the one before (the first always does), else all.  Without a minimum interval every candidate is
kept; with one the first is, then each that is at least the interval after the last kept one.  A time that stepped back
is not after, unless by more than CLOCK_SET_BACK_NS: then somebody set the clock, and the sample is kept, so that a
signal does not stay silent until the clock has caught up.  Of a window at most the `max_samples` newest kept samples
of a signal remain: that is what the campaign asked for, and no loss.  An increment of a window that is still open has
at most as many as well; where a crash leaves increments in the place of the window, they may add up to more.

Invariant: signals that keep the same frames are handled, stored and sent together, so the cost is per message
and rule, not per signal and sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.down.campaign import Campaign
from agent.formats.up.columns import Clock, ColumnGroup, Described, SignalInfo, Window
from can_dbc.decoder import SignalColumns
from can_dbc.plan import BusPlan, MessagePlan, SignalPlan

CLOCK_SET_BACK_NS: Final = 60 * 10**9  # frames of one bus are never that far out of order (real ones: 24 ms)
_Rows = NDArray[np.intp]


def wanted(campaigns: Sequence[Campaign]) -> Callable[[int, MessagePlan], tuple[int, ...]]:
    """What the Decoder asks: which signals of a message, on any bus, some of `campaigns` collects."""

    def of_message(_bus: int, message: MessagePlan) -> tuple[int, ...]:
        return tuple(
            index
            for index, signal in enumerate(message.signals)
            if any(campaign.rule_for(f"{message.name}.{signal.name}") for campaign in campaigns)
        )

    return of_message


def described(campaign: Campaign, buses: Sequence[str], plans: Mapping[int, BusPlan]) -> list[Described]:
    """All that `campaign` may collect, with whole value tables, in the order in which windows hold it.

    `plans` by index into `buses`.
    """
    found: list[Described] = []
    for bus, plan in sorted(plans.items()):
        for message in sorted(plan.with_contained, key=lambda m: (m.can_id, m.extended, _header(m))):
            for signal in message.signals:
                name = f"{message.name}.{signal.name}"
                if campaign.rule_for(name) is not None:
                    found.append((_info(name, buses[bus], signal), signal.texts))
    return found


class _Piece(msgspec.Struct, frozen=True, eq=False):
    """Samples of several signals of one message that were kept at the same frames of one increment.

    `t_us` (n,); `raw` (rows, n); `members` (rows,): which signals of the message, as indices; `part`: of the window.
    """

    t_us: NDArray[np.int64]
    raw: NDArray[np.int64]
    members: tuple[int, ...]
    part: int


@dataclass(frozen=True, slots=True, eq=False)
class _Signal:
    """One signal on one bus with its value table, and how many samples of a window it keeps."""

    info: SignalInfo
    texts: Mapping[int, str]
    max_samples: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """How the signals at `members` (indices into those of the message) are collected."""

    interval_ns: int
    on_change: bool
    members: _Rows

    @property
    def keeps_all(self) -> bool:
        """Whether every sample is kept."""
        return self.interval_ns == 0 and not self.on_change


@dataclass(slots=True, eq=False)
class _Message:
    """The collected signals of one message on one bus (of one sender if it has a source address), as rows of columns.

    `indices` (S,): which signals of the message; `members` (S,): all of them as indices into `signals`.  `kept_ns`,
    `seen` and `has_seen` (S,) are the state across increments: time of the last kept sample, last raw value, and
    whether there was one (the first is always kept).  `limited`: whether some signal keeps only its newest samples.
    `rows` (S,): the row of each signal in columns that hold the signals `layout`, which another Decoder, for other
    campaigns beside this one, lays out anew; `keeps_all`: whether every sample is kept, of every signal that is laid
    out, as it is laid out.  `pieces`: what the open window holds, in order.
    """

    indices: tuple[int, ...]
    members: tuple[int, ...]
    signals: tuple[_Signal, ...]
    rules: tuple[_Rule, ...]
    kept_ns: NDArray[np.int64]
    seen: NDArray[np.int64]
    has_seen: NDArray[np.bool_]
    limited: bool
    source_address: int | None
    layout: tuple[int, ...] = ()
    rows: _Rows = field(default_factory=lambda: np.empty(0, np.intp))
    keeps_all: bool = False
    pieces: list[_Piece] = field(default_factory=list)
    described: dict[tuple[int, ...], tuple[tuple[SignalInfo, ...], tuple[Mapping[int, str], ...]]] = field(
        default_factory=dict
    )

    def lay_out(self, layout: tuple[int, ...]) -> None:
        """Columns hold the signals `layout` from now on."""
        self.layout = layout
        self.rows = np.array([layout.index(index) for index in self.indices], np.intp)
        self.keeps_all = layout == self.indices and [rule.keeps_all for rule in self.rules] == [True]

    def keep(self, piece: _Piece) -> None:
        """Add samples, and let go of pieces that `max_samples` newer ones of each of their signals make superfluous."""
        self.pieces.append(piece)
        if not self.limited:
            return
        held = [0] * len(self.signals)
        needed = []
        for kept in reversed(self.pieces):
            limits = [(held[index], self.signals[index].max_samples) for index in kept.members]
            if any(most is None or newer < most for newer, most in limits):
                needed.append(kept)
            for index in kept.members:
                held[index] += len(kept.t_us)
        self.pieces = needed[::-1]

    def group(self, members: tuple[int, ...], t_us: NDArray[np.int64], raw: NDArray[np.int64]) -> ColumnGroup:
        """Samples of `members`, under the same tuples of descriptions and value tables each time."""
        known = self.described.get(members)
        if known is None:
            chosen = [self.signals[index] for index in members]
            known = tuple(signal.info for signal in chosen), tuple(signal.texts for signal in chosen)
            self.described[members] = known
        infos, tables = known
        return ColumnGroup(t_us, infos, raw, tables, self.source_address)


class CampaignCollector:
    """Collects for one campaign.  `buses` are the names of the channels that SignalColumns number."""

    def __init__(self, campaign: Campaign, buses: Sequence[str]) -> None:
        self._campaign = campaign
        self._buses = tuple(buses)
        self._messages: dict[tuple[int, int, bool, int, int], _Message] = {}
        self._in_order: list[_Message] = []  # of their keys; empty where that is to be found out again
        self._part = 0  # of the open window; parts before it are durable

    @property
    def campaign(self) -> Campaign:
        """What is collected, and how."""
        return self._campaign

    @property
    def samples(self) -> int:
        """How many the open window holds."""
        return sum(piece.raw.size for message in self._messages.values() for piece in message.pieces)

    def offer(self, columns: Sequence[SignalColumns]) -> None:
        """Keep what the campaign asks for of one increment.

        A message must come with every signal that the campaign collects of it, each time: see `wanted`.
        """
        columns = [decoded for decoded in columns if len(decoded.t_ns)]
        if not columns:
            return
        t_ns = np.concatenate([decoded.t_ns for decoded in columns])
        all_active = self._campaign.start_ns <= t_ns.min() and t_ns.max() < self._campaign.expiry_ns
        t_us = t_ns // 1_000
        stop = 0
        for decoded in columns:
            start, stop = stop, stop + len(decoded.t_ns)
            sender = -1 if decoded.source_address is None else decoded.source_address
            plan = decoded.message
            key = (decoded.bus, plan.can_id, plan.extended, _header(plan), sender)
            message = self._messages.get(key)
            if message is None:
                message = self._messages[key] = self._new_message(decoded)
                self._in_order = []
            if decoded.signals is not message.layout:
                message.lay_out(decoded.signals)
            if not message.signals:
                continue
            if all_active and decoded.valid is None and message.keeps_all:
                message.keep(_Piece(t_us[start:stop], decoded.raw, message.members, self._part))
            else:
                self._collect(message, decoded)

    def part(self, *, start_us: int, end_us: int, clock: Clock) -> Window:
        """What came since the last `sealed`, as a window of its own, which may be empty."""
        return self._window(start_us, end_us, clock, self._part)

    def sealed(self) -> None:
        """The last `part` is durable; another one begins."""
        self._part += 1

    def close(self, *, start_us: int, end_us: int, clock: Clock) -> Window:
        """The open window, which may be empty; a new one opens.  Intervals and changes run on across windows."""
        window = self._window(start_us, end_us, clock, 0)
        for message in self._messages.values():
            message.pieces = []
        self._part = 0
        return window

    def _window(self, start_us: int, end_us: int, clock: Clock, first_part: int) -> Window:
        groups: list[ColumnGroup] = []
        self._in_order = self._in_order or [self._messages[key] for key in sorted(self._messages)]
        for message in self._in_order:
            pieces = message.pieces
            if first_part:
                pieces = [piece for piece in pieces if piece.part >= first_part]
            if len(pieces) == 1 and not message.limited:
                groups.append(message.group(pieces[0].members, pieces[0].t_us, pieces[0].raw))
            elif pieces:
                groups += _groups(message, pieces)
        return Window(self._campaign.name, self._campaign.revision, start_us, end_us, clock, tuple(groups))

    def _new_message(self, decoded: SignalColumns) -> _Message:
        indices: list[int] = []
        signals: list[_Signal] = []
        by_rule: dict[tuple[int, bool], list[int]] = {}
        for index in decoded.signals:
            plan = decoded.message.signals[index]
            name = f"{decoded.message.name}.{plan.name}"
            rule = self._campaign.rule_for(name)
            if rule is not None:
                by_rule.setdefault((rule.interval_ns, rule.on_change), []).append(len(indices))
                indices.append(index)
                info = _info(name, self._buses[decoded.bus], plan)
                signals.append(_Signal(info, plan.texts, rule.max_samples))
        message = _Message(
            tuple(indices),
            tuple(range(len(indices))),
            tuple(signals),
            tuple(_Rule(*rule, np.array(members, np.intp)) for rule, members in by_rule.items()),
            np.zeros(len(indices), np.int64),
            np.zeros(len(indices), np.int64),
            np.zeros(len(indices), np.bool_),
            any(signal.max_samples is not None for signal in signals),
            decoded.source_address,
        )
        message.lay_out(decoded.signals)
        return message

    def _collect(self, message: _Message, decoded: SignalColumns) -> None:
        kept: dict[bytes, tuple[_Rows, list[int]]] = {}  # by frames, whichever rule led to them
        active = self._active(decoded.t_ns)
        for rule in message.rules:
            for members, frames in _present(message, rule.members, decoded, active):
                for same, chosen in _choose(message, rule, members, frames, decoded):
                    kept.setdefault(chosen.tobytes(), (chosen, []))[1].extend(same.tolist())
        for frames, indices in kept.values():
            rows = message.rows[indices]
            raw = decoded.raw[rows[:, None], frames]
            message.keep(_Piece(decoded.t_ns[frames] // 1_000, raw, tuple(indices), self._part))

    def _active(self, t_ns: NDArray[np.int64]) -> _Rows:
        """The frames within the campaign's time."""
        start_ns, expiry_ns = self._campaign.start_ns, self._campaign.expiry_ns
        if start_ns <= t_ns.min() and t_ns.max() < expiry_ns:
            return np.arange(len(t_ns))
        # Python compares exactly beyond int64, where far expiry times lie.
        return np.flatnonzero((t_ns >= start_ns) & (t_ns < min(expiry_ns, np.iinfo(np.int64).max)))


def _present(message: _Message, members: _Rows, decoded: SignalColumns, active: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
    """Of `members` those that are present in the same frames, and these frames."""
    if not len(active):
        return
    if decoded.valid is None:
        yield members, active
        return
    for indices, mask in _alike(decoded.valid[message.rows[members]][:, active]):
        if mask.any():
            yield members[indices], active[mask]


def _choose(
    message: _Message, rule: _Rule, members: _Rows, frames: _Rows, decoded: SignalColumns
) -> Iterator[tuple[_Rows, _Rows]]:
    """Of `members`, all present in `frames`, those that keep the same frames, and these; the state moves on."""
    if rule.on_change:
        raw = decoded.raw[message.rows[members][:, None], frames]
        changed = np.empty(raw.shape, np.bool_)
        changed[:, 1:] = raw[:, 1:] != raw[:, :-1]
        changed[:, 0] = (raw[:, 0] != message.seen[members]) | ~message.has_seen[members]
        message.seen[members] = raw[:, -1]
        candidates = [(members[indices], frames[mask]) for indices, mask in _alike(changed)]
    else:
        candidates = [(members, frames)]
    for same, among in candidates:
        if rule.interval_ns == 0:
            chosen = [(same, among)]
        else:
            chosen = [
                (one, among[_spaced(decoded.t_ns[among], last_ns, rule.interval_ns)])
                for one, last_ns in _by_last_kept(message, same)
            ]
        for one, kept in chosen:
            message.has_seen[one] = True
            if len(kept):
                message.kept_ns[one] = decoded.t_ns[kept[-1]]
                yield one, kept


def _by_last_kept(message: _Message, members: _Rows) -> Iterator[tuple[_Rows, int | None]]:
    """`members` by the time of their last kept sample; None where there is none yet."""
    seen = message.has_seen[members]
    if not seen.all():
        yield members[~seen], None
    members = members[seen]
    for last_ns in np.unique(message.kept_ns[members]).tolist():
        yield members[message.kept_ns[members] == last_ns], last_ns


def _spaced(t_ns: NDArray[np.int64], last_ns: int | None, interval_ns: int) -> list[int]:
    """The positions to keep: each the first that is at least `interval_ns` after the one kept before."""
    if not len(t_ns):
        return []
    reached = np.maximum.accumulate(t_ns)
    if last_ns is not None and last_ns > reached[0]:
        reached = np.maximum(reached, last_ns)
    if (reached - t_ns).max() > CLOCK_SET_BACK_NS:
        return _spaced_by_a_clock_that_was_set(t_ns, last_ns, interval_ns)
    # The first time at or above a threshold is the first place at which the running maximum is.
    position = 0 if last_ns is None else int(reached.searchsorted(last_ns + interval_ns))
    kept = []
    while position < len(t_ns):
        kept.append(position)
        position = int(reached.searchsorted(int(t_ns[position]) + interval_ns))
    return kept


def _spaced_by_a_clock_that_was_set(t_ns: NDArray[np.int64], last_ns: int | None, interval_ns: int) -> list[int]:
    kept = []
    for position, time_ns in enumerate(t_ns.tolist()):
        if last_ns is None or time_ns >= last_ns + interval_ns or time_ns < last_ns - CLOCK_SET_BACK_NS:
            kept.append(position)
            last_ns = time_ns
    return kept


def _alike(masks: NDArray[np.bool_]) -> Iterator[tuple[_Rows, NDArray[np.bool_]]]:
    """Rows of (S, n) masks by content: the indices of equal ones, and their mask."""
    alike: dict[bytes, list[int]] = {}
    for index, packed in enumerate(np.packbits(masks, axis=1)):
        alike.setdefault(packed.tobytes(), []).append(index)
    for indices in alike.values():
        yield np.array(indices, np.intp), masks[indices[0]]


def _groups(message: _Message, pieces: Sequence[_Piece]) -> Iterator[ColumnGroup]:
    """What `pieces` hold of a message, by signals that were kept at the same frames."""
    if not message.limited and all(piece.members == pieces[0].members for piece in pieces):
        t_us = _joined([piece.t_us for piece in pieces])
        yield message.group(pieces[0].members, t_us, _joined([piece.raw for piece in pieces]))
        return
    places: list[list[tuple[int, int]]] = [[] for _ in message.signals]  # (piece, row in it) of each signal
    for number, piece in enumerate(pieces):
        for row, index in enumerate(piece.members):
            places[index].append((number, row))
    together: dict[tuple[int | None, ...], list[int]] = {}
    for index, signal in enumerate(message.signals):
        if places[index]:
            if signal.max_samples is not None:
                _trim(places[index], [len(piece.t_us) for piece in pieces], signal.max_samples)
            together.setdefault((signal.max_samples, *(number for number, _ in places[index])), []).append(index)
    for (most, *_), members in together.items():
        newest = slice(None if most is None else -most, None)
        chosen = [pieces[number] for number, _ in places[members[0]]]
        rows = [[places[index][i][1] for index in members] for i in range(len(chosen))]
        t_us = _joined([piece.t_us for piece in chosen])[newest]
        raw = _joined([piece.raw[row] for piece, row in zip(chosen, rows, strict=True)])[:, newest]
        yield message.group(tuple(members), t_us, raw)


def _trim(places: list[tuple[int, int]], sizes: Sequence[int], max_samples: int) -> None:
    """Let go of the first places that newer samples have made superfluous."""
    held = sum(sizes[number] for number, _ in places)
    while held - sizes[places[0][0]] >= max_samples:
        held -= sizes[places.pop(0)[0]]


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)


def _header(message: MessagePlan) -> int:
    """What tells the messages of one container, which have its identifier, from each other; -1 for other messages."""
    return -1 if message.header_id is None else message.header_id


def _info(name: str, bus: str, plan: SignalPlan) -> SignalInfo:
    return SignalInfo(name, bus, plan.unit, plan.kind, plan.bits, plan.scale, plan.offset)
