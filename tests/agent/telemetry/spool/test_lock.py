"""Only one process at a time uses a spool."""

from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.telemetry.spool.lock import FolderLock


def test_a_lock_in_use_is_refused_at_each_try_and_can_be_taken_once_released(tmp_path: Path) -> None:
    # The kernel gives the lock to an open file, so two objects exclude each other as two processes do.
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    first.take()
    for _ in range(2):
        with pytest.raises(Permanent, match="is in use by another process"):
            second.take()
        assert not second.is_held
    first.release()
    second.take()
    assert (first.is_held, second.is_held) == (False, True)
