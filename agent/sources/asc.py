"""Read ASC, the text log of Vector's tools (CANoe, CANalyzer) and of others that export it.

    date Wed Nov 25 10:00:00.000 2026           the start of the measurement, in local time
    base hex  timestamps absolute               how numbers are written; what times count from
    // version 9.0.0                            a comment
    Begin Triggerblock Wed Nov 25 10:00:05.000 2026
       5.100000 1  123             Rx   d 2 10 27     time, channel, identifier, direction, length, data
       5.200000 1  ErrorFrame
       5.300000 CANFD   1 Rx  7d  Name  1 0 9 12 ...  identifier, name, BRS, ESI, length, bytes, ...
       5.400000 1  Statistic: D 2 R 0 ...             another event
    End TriggerBlock

An identifier with an x has 29 bits.  `absolute` times count from the start of the measurement, `relative` times from
the previous event of any kind.  A trigger block is a section of the measurement; its date does not change what
times count from.  The lines of the header may stand in any order, and a log may hold several measurements in a row.

python-can's reader is not used, because it drops frames and misreads times in silence
(docs/decisions/0027-text-logs.md).  The rules about times come from
https://github.com/hardbyte/python-can/issues/1788 and /2022, those about headers and lines from /1256, /1299 and /1595.
"""

import re
from collections.abc import Iterator
from typing import Final

import can

from agent.sources.asc_frames import AscFrames
from agent.sources.log_lines import DAMAGED, Lines, Notes, Unreadable, quoted
from agent.sources.log_times import WallClock, wall_time

_TIME: Final = re.compile(r"-?\d+(?:[.,]\d+)?$")
_BASES: Final = {"hex": 16, "dec": 10}
_BASE: Final = re.compile(r"base (\S+)")
_TIMESTAMPS: Final = re.compile(r"timestamps (\S+)")
_HEADER: Final = re.compile(r"(?:(?:base \S+|timestamps \S+|(?:no )?internal events logged)(?: |$))+$")
_BLOCK: Final = re.compile(r"begin trigger ?block")
_BLOCK_END: Final = re.compile(r"end trigger ?block")
_SLACK_NS: Final = 10_000_000  # Dates have milliseconds, and tools write the header shortly before the block.
_WHOLE_SECONDS_SLACK_NS: Final = 1_000_000_000  # if the date has none


def messages(lines: Lines, clock: WallClock, notes: Notes) -> Iterator[can.Message]:
    """Yield the frames of the log.  Raises: Unreadable for a line that is neither a frame nor another event."""
    header = _Header(lines, clock, notes)
    frames = AscFrames(lines, notes)
    for line in lines:
        fields = line.split()
        if not fields:
            continue
        if not _TIME.match(fields[0]):
            header.read(" ".join(fields))
            frames.base = header.base
            continue
        timestamp = header.times.of_event(fields) / 1e9
        if message := frames.message(fields, line):
            message.timestamp = timestamp
            yield message
    header.finish()


class _Times:
    """Computes the Unix time of each event.  All times are in nanoseconds."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._start: int | None = None
        self._block: int | None = None
        self._newest = 0
        self.relative = False

    @property
    def dated(self) -> bool:
        """Return whether the log has had a date up to now."""
        return self._start is not None

    def start(self, unix_ns: int) -> None:
        """Begin a measurement."""
        self._start, self._block, self._newest = unix_ns, None, 0

    def begin_block(self, unix_ns: int) -> None:
        """Begin a trigger block.  Its date is the start of the measurement if there has been no other date."""
        if self._start is None:
            self.start(unix_ns)
        elif not self.relative:
            self._block = unix_ns
        elif unix_ns >= self._start + self._newest or not self._newest:
            # No event of the pause between two blocks was logged, so only the date tells how long the pause was.
            self.start(unix_ns)

    def of_event(self, fields: list[str]) -> int:
        """Return the time of the next event in the log."""
        text = fields[0]
        if "," in text:
            self._notes.say("times have a decimal comma, which is read as a decimal point")
            text = text.replace(",", ".")
        time_ns = round(float(text) * 1e9)
        if self.relative:
            time_ns += self._newest
        elif self._block is not None and fields[1:2] != ["Start"]:  # "Start of measurement" is always at 0.
            self._judge_block(self._block, time_ns)
        self._newest = time_ns
        return (self._start or 0) + time_ns

    def _judge_block(self, block: int, first_ns: int) -> None:
        """Find out whether the times of a trigger block count from the block; the first of these times is `first_ns`.

        Vector's tools never count from the block, but other tools do: python-can writes the time of the export into the
        line "date", and the time of the first frame into the line of the block.
        """
        assert self._start is not None
        self._block = None
        slack = _SLACK_NS if self._start % _WHOLE_SECONDS_SLACK_NS else _WHOLE_SECONDS_SLACK_NS
        # Frames from before the trigger may lie a little before the block, but then they lie nearer to it than to the
        # start of the measurement.
        behind_block = self._start + first_ns - block
        if block < self._start - slack or (behind_block < -slack and abs(first_ns) < -behind_block):
            self._start = block
            self._notes.say(
                "times count from the date of their trigger block; counted from the date of the log they would lie "
                "outside of the block"
            )


class _Header:
    """Reads the lines that have no time: the header, comments, and the ends of trigger blocks."""

    def __init__(self, lines: Lines, clock: WallClock, notes: Notes) -> None:
        self._lines, self._clock, self._notes = lines, clock, notes
        self.times = _Times(notes)
        self.base = _BASES["hex"]
        self._has_base = False
        self._block_line = 0

    def read(self, line: str) -> None:
        """Read one line, whose words have one blank between them.

        Raises: Unreadable if the line is nothing that ASC defines.
        """
        folded = line.lower()
        if line.startswith("//"):
            return
        if folded.startswith("date "):
            self.times.start(self._unix_ns(line[len("date ") :]))
        elif found := _BLOCK.match(folded):
            self._block_line = self._lines.number
            if date := line[found.end() :].strip():
                self.times.begin_block(self._unix_ns(date))
        elif _BLOCK_END.match(folded):
            self._block_line = 0
        elif _HEADER.match(folded):
            self._read_units(folded)
        else:
            raise Unreadable(f"{quoted(line)} is neither a line of an ASC header nor an event with a time; {DAMAGED}")

    def _read_units(self, line: str) -> None:
        if found := _BASE.search(line):
            if found[1] not in _BASES:
                raise Unreadable(f"base {found[1]!r} is unknown; ASC logs have base hex or base dec")
            self.base, self._has_base = _BASES[found[1]], True
        if found := _TIMESTAMPS.search(line):
            if found[1] not in ("absolute", "relative"):
                raise Unreadable(f"timestamps {found[1]!r} are unknown; ASC logs have absolute or relative ones")
            self.times.relative = found[1] == "relative"

    def _unix_ns(self, text: str) -> int:
        return self._clock.unix_ns(wall_time(text), self._notes)

    def finish(self) -> None:
        """Add notes on what the log should have contained, but did not contain up to its end."""
        if not self.times.dated:
            self._notes.say("the log has no date, so its times count from 1970")
        if not self._has_base:
            self._notes.say("the log has no line 'base', so its numbers are read as hexadecimal")
        if self._block_line:
            self._notes.say(
                f"the trigger block that begins in line {self._block_line} has no end, so frames may be missing at the "
                "end of the log"
            )
