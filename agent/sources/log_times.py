"""Convert the dates in the headers of logs, which name no time zone, to Unix time.

The rule for all formats: a date without a time zone is local time.  CANoe, PCAN-View and `candump -tA` write the local
time of the recording machine.  `--log-timezone` (in agent.toml: `timezone` of the source) names its zone; without it,
the zone of this machine is taken.  Formats with Unix time (candump -L, CSV, db) and MF4, which names its zone, need no
rule.  python-can reads BLF and TRC as UTC, and ASC as local time: https://github.com/hardbyte/python-can/issues/2010.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from agent.errors import Permanent
from agent.sources.log_lines import Notes, Unreadable, quoted

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OFFSET: Final = re.compile(r"([+-])(\d{1,2}):?(\d{2})")
_TIME_OF_DAY: Final = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})(?:[.,:](\d{1,6})\d*)?(?:\.\d+)?$")
_DAY: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[.,日일]?$")
_YEAR: Final = re.compile(r"(\d{4})[年년]?$")
_NUMBERED_MONTH: Final = re.compile(r"(\d{1,2})[月월]$")
_YEAR_FIRST: Final = re.compile(r"(\d{4})[-./](\d{1,2})[-./](\d{1,2})$")
_DAY_FIRST: Final = re.compile(r"(\d{1,2})([-./])(\d{1,2})[-./](\d{4})$")
# Python's `str.isalnum` keeps the letters of Hangul apart in the form NFD, so both words are folded as well (below).
_MORNING: Final = frozenset(unicodedata.normalize("NFD", word) for word in ("am", "上午", "午前", "오전"))
_AFTERNOON: Final = frozenset(unicodedata.normalize("NFD", word) for word in ("pm", "下午", "午後", "오후"))
# The first letters of the months, without accents, in English, German, French, Italian, Spanish, Portuguese, Dutch and
# the Scandinavian languages.  Windows writes them into logs by its own language.
_MONTHS: Final = {
    "jan": 1, "ene": 1, "gen": 1,
    "feb": 2, "fev": 2,
    "mar": 3, "mrz": 3, "maa": 3, "mrt": 3,
    "apr": 4, "avr": 4, "abr": 4,
    "may": 5, "mai": 5, "mag": 5, "mei": 5, "maj": 5,
    "jun": 6, "juin": 6, "giu": 6,
    "jul": 7, "juil": 7, "lug": 7,
    "aug": 8, "aou": 8, "ago": 8,
    "sep": 9, "set": 9,
    "oct": 10, "okt": 10, "ott": 10, "out": 10,
    "nov": 11,
    "dec": 12, "dez": 12, "dic": 12, "des": 12,
}  # fmt: skip
_MOST_HOURS: Final = 12  # of a clock with am and pm
_MOST_MONTHS: Final = 12


class WallClock:
    """Converts wall-clock times without a zone to Unix time, by the one rule for all logs."""

    def __init__(self, zone: str = "") -> None:
        """Take the zone of the recording machine: a name, an offset, or "" for the zone of this machine.

        For example: "Europe/Berlin", "UTC", "+02:00".  Raises: Permanent if the zone is unknown.
        """
        self._zone = _zone(zone)

    def unix_ns(self, wall: datetime, notes: Notes | None = None) -> int:
        """Return the Unix time of `wall`; a time that its zone does not have exactly once is noted in `notes`."""
        earlier, later = (wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if earlier != later and notes is not None:
            notes.say(
                f"the log's time {wall} is not unique, because the clocks were changed; it is read as "
                f"{earlier:%H:%M:%S} UTC: give the offset with --log-timezone if this is wrong"
            )
        return (earlier - _EPOCH) // timedelta(microseconds=1) * 1000


def _zone(text: str) -> tzinfo | None:
    if not text:
        return None
    if text.upper() in ("UTC", "Z"):
        return UTC
    if offset := _OFFSET.fullmatch(text):
        sign = -1 if offset[1] == "-" else 1
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if span < timedelta(days=1):
            return timezone(sign * span)
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:
        raise Permanent(
            f"log timezone {text!r} is unknown; give a name such as Europe/Berlin, an offset such as +02:00, or UTC"
        ) from error


def wall_time(text: str) -> datetime:
    """Read a date and a time of day from the header of a log.  The result has no time zone.

    The words may stand in any order, and a name of the day of the week may come first:
    "Wed Nov 25 10:00:00.000 am 2026", "Mi. Nov 25 10:00:00 2026", "25.11.2026 10:00:00.000.0", "2026-11-25 10:00:00".

    Raises: Unreadable if the text is not a date, or could be two dates.
    """
    words: list[str] = []
    time_of_day = year = month = day = afternoon = None
    for token in text.split():
        folded = _folded(token)
        if found := _TIME_OF_DAY.match(token):
            time_of_day = found
        elif folded in _MORNING | _AFTERNOON:
            afternoon = folded in _AFTERNOON
        elif found := _YEAR_FIRST.match(token):
            year, month, day = (int(number) for number in found.groups())
        elif found := _DAY_FIRST.match(token):
            day, month, year = _day_first(found, text)
        elif found := _NUMBERED_MONTH.match(token):
            month = int(found[1])
        elif found := _YEAR.match(token):
            year = int(found[1])
        elif found := _DAY.match(token):
            day = int(found[1])
        else:
            words.append(folded)
    if month is None and words:
        month = _month(words[-1], text)
    if time_of_day is None or year is None or month is None or day is None:
        raise Unreadable(f"{quoted(text)} is not a date; write it as 'Wed Nov 25 10:00:00.000 2026'")
    hour = _hour(int(time_of_day[1]), afternoon, text)
    microsecond = int((time_of_day[4] or "").ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, int(time_of_day[2]), int(time_of_day[3]), microsecond)
    except ValueError as error:
        raise Unreadable(f"{quoted(text)} is not a date: {error}; correct it in the log") from error


def _folded(token: str) -> str:
    # An accent is a character of its own in the form NFD, and no letter.
    return "".join(letter for letter in unicodedata.normalize("NFD", token.lower()) if letter.isalnum())


def _month(word: str, text: str) -> int:
    # "juin" and "juillet" differ only in their fourth letter.
    number = _MONTHS.get(word[:4], _MONTHS.get(word[:3]))
    if number is None:
        raise Unreadable(
            f"{word!r} in the date {quoted(text)} is not a known month; write Jan, Feb, ... Dec in the log"
        )
    return number


def _day_first(found: re.Match[str], text: str) -> tuple[int, int, int]:
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    # Dots are only written between day and month in this order; with a slash, both orders are in use.
    if found[2] == "." or first > _MOST_MONTHS or first == second:
        return first, second, year
    if second > _MOST_MONTHS:
        return second, first, year
    raise Unreadable(f"{quoted(text)} may be the day or the month first; write the date as {year}-MM-DD in the log")


def _hour(hour: int, afternoon: bool | None, text: str) -> int:
    if afternoon is None or hour > _MOST_HOURS:
        # Some versions of Vector's tools add "pm" to a 24-hour time: https://github.com/hardbyte/python-can/issues/2009
        return hour
    if hour == 0 and afternoon:
        raise Unreadable(f"{quoted(text)} may be noon or midnight; correct the time in the log")
    return hour % _MOST_HOURS + (_MOST_HOURS if afternoon else 0)
