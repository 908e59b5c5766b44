"""Recognize, by its first bytes, a file whose format is not the one that its name says.

Without this check, the error of the reader would be about the first line, and not about the file.
"""

import re
from typing import Final

_EXPORT: Final = "export it as ASC, BLF or TRC"

# How a file begins, what it is, and the suffix of the format if it is one that can be read.
_KINDS: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = (
    (re.compile(rb"LOGG"), "a BLF log", ".blf"),
    (re.compile(rb"MDF     |UnFinMF "), "an MF4 log", ".mf4"),
    (re.compile(rb"SQLite format 3\0"), "an SQLite database", ".db"),
    (re.compile(rb"\x1f\x8b"), "compressed by gzip", ".gz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "compressed by zstd", ".zst"),
    (re.compile(rb"\xfd7zXZ\0"), "compressed by xz", ".xz"),
    (re.compile(rb"BZh[1-9]"), "compressed by bzip2", ".bz2"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive or a workbook of Excel", ""),
    (
        re.compile(rb"\xd4\xc3\xb2\xa1|\xa1\xb2\xc3\xd4|\x4d\x3c\xb2\xa1|\xa1\xb2\x3c\x4d|\n\r\r\n"),
        "a PCAP capture",
        "",
    ),
    (re.compile(rb"\*\*\*BUSMASTER", re.IGNORECASE), "a BUSMASTER log", ""),
    (re.compile(rb"Time Stamp,ID,Extended", re.IGNORECASE), "a CSV file of SavvyCAN (GVRET)", ""),
    (re.compile(rb"TimestampEpoch[;,]BusChannel"), "a CSV file of CSS Electronics' converter", ""),
    (re.compile(rb"timestamp,arbitration_id"), "a CSV file of python-can", ".csv"),
    (re.compile(rb"\s*;(?:\$FILEVERSION|#{20})"), "a TRC log", ".trc"),
    (re.compile(rb"\s*(?:date\s+\w+\W+\w+|base\s+(?:hex|dec)\b)", re.IGNORECASE), "an ASC log", ".asc"),
    (re.compile(rb"\(\d+\.\d+\) \s*\w+ [0-9A-Fa-f]+#"), "a candump log", ".log"),
)
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_UTF8: Final = b"\xef\xbb\xbf"
_LEAST_UTF16_BYTES: Final = 8


def mistaken(head: bytes, suffix: str) -> str:
    """Return what is wrong if `head`, the first bytes of a file, is not of the format `suffix`, or "" if it may be.

    The text says what the file is and what to do.
    """
    first = head[:_LEAST_UTF16_BYTES]
    # Latin text in UTF-16 has a zero in every second byte, even without a byte order mark.
    if head.startswith(_UTF16) or (len(first) == _LEAST_UTF16_BYTES and all(first[::2]) and not any(first[1::2])):
        return (
            "the file is UTF-16 text, as PowerShell writes it with >; "
            "convert it to UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        )
    head = head.removeprefix(_UTF8)
    for beginning, what, its_suffix in _KINDS:
        if beginning.match(head):
            if its_suffix == suffix:
                return ""
            return f"the file is {what}, not a {suffix} log; {f'name it by {its_suffix}' if its_suffix else _EXPORT}"
    return ""
