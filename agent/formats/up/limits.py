"""Format number and limits of a batch's body, which writer and reader share.  Pure."""

from typing import Final

FORMAT: Final = 1
MAX_BODY_BYTES: Final = 8 * 1024 * 1024  # decompressed; objects of a forged body may take 40 times that
MAX_VALUES: Final = 8 * 1024 * 1024  # times and samples of a batch: 64 MiB as int64
MAX_SENDERS: Final = 256  # of one message: a J1939 source address is a byte
