"""The format number and the limits of the body of a batch, for writer and reader.  Pure."""

from typing import Final

FORMAT: Final = 1
MAX_BODY_BYTES: Final = 8 * 1024 * 1024  # after decompression; the objects of a forged body may take 40 times as much
MAX_VALUES: Final = 8 * 1024 * 1024  # times and samples of a batch, which take 64 MiB as int64
MAX_SENDERS: Final = 256  # senders of one message, because a J1939 source address is one byte
