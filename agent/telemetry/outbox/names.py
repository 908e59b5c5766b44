"""Makes the random names that the outbox gives to windows and to appends."""

import secrets
from dataclasses import dataclass, field


@dataclass(slots=True)
class OpenWindow:
    """An open window that has checkpoints: its id, the number of its checkpoints, and the number of samples in them.

    The id is random, and has the form of an epoch, because it is the epoch of the window's checkpoints.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    checkpoints: int = 0
    samples: int = 0


def new_token() -> str:
    """Return a token for one append."""
    return secrets.token_hex(8)
