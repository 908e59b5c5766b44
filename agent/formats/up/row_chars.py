"""Counts the characters that the samples of a batch need in the text columns of the lake.  Pure."""

from collections.abc import Sequence

from agent.formats.up.columns import ColumnGroup
from agent.formats.up.limits import MAX_EDGE_CHARS, MAX_LABEL_CHARS, MAX_NAME_CHARS, MAX_ROW_CHARS

_LONGEST = MAX_NAME_CHARS + 3 * MAX_LABEL_CHARS + MAX_EDGE_CHARS  # name; bus, unit and campaign; text


def row_chars(groups: Sequence[ColumnGroup]) -> int:
    """Return how many characters the rows of `groups` need at most, if each has the longest text of its value table.

    Return 0 if there are so few samples that they cannot exceed MAX_ROW_CHARS.
    """
    samples = sum(group.raw.size for group in groups)
    # In most batches even the longest texts would fit.  Counting takes time for each signal, so it is left out then.
    if samples * _LONGEST <= MAX_ROW_CHARS:
        return 0
    chars = 0
    for group in groups:
        for signal, table in zip(group.signals, group.tables, strict=True):
            texts = max(map(len, table.values()), default=0)
            chars += len(group.t_us) * (len(signal.name) + len(signal.bus) + len(signal.unit or "") + texts)
    return chars
