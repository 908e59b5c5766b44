"""The format number and the limits of the body of a batch, for writer and reader.  Pure.

A reader checks every limit before it spends memory or time on the content, because a stolen head unit can sign what it
likes, and a few hundred compressed bytes could otherwise stand for gigabytes.  The limits are far above the needs of a
real vehicle.  A writer cuts windows into fragments that keep the limits.
"""

from typing import Final

FORMAT: Final = 1
MAX_SEQ: Final = 2**53 - 1
"""The largest sequence number that the receiver accepts.

Queries and JSON readers hold it exactly, and SQLite and Delta can still add to it.  A vehicle that makes a batch every
microsecond reaches it after 285 years.
"""
MAX_BODY_BYTES: Final = 4 * 1024 * 1024  # after decompression; the objects of a forged body may take 40 times as much
MAX_VALUES: Final = 1024 * 1024  # times and samples of a batch; a row of the lake takes some 100 bytes of memory
MAX_SENDERS: Final = 256  # senders of one message, because a J1939 source address is one byte
MAX_SIGNALS: Final = 65_536  # value columns of a batch, and entries of a signal table
MAX_EVENTS: Final = 4_096
MAX_EVENT_FIELDS: Final = 64
MAX_TRIGGER: Final = 2**53 - 1  # the number of a trigger within its campaign; JSON readers hold it exactly
MAX_NAME_CHARS: Final = 500  # of a signal; the names of real databases have at most 260
MAX_LABEL_CHARS: Final = 100  # of a bus, unit, campaign, revision, boot id, kind of event or name of a field
MAX_TEXT_CHARS: Final = 300  # of an entry in a value table of a database; a writer cuts longer ones
MAX_EDGE_CHARS: Final = 2_100
"""The limit of any text of a batch, and of the JSON list of the names that MULTI_RISING_EDGE_TRIGGER has found.

The names are texts of a condition, which has at most 2,048 characters.
"""
MAX_TABLE_ENTRIES: Final = 524_288  # of all value tables together; each takes at least two bytes of a catalogue
MAX_ROW_CHARS: Final = 384 * MAX_VALUES
"""The limit of characters in the text columns of all samples of a batch.

The lake stores a text once for many rows, but a query may need it in every row.
"""


def shortened(text: str, limit: int) -> str:
    """Return `text`, cut to `limit` characters with an ellipsis at its end if it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
