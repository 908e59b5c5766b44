"""Skips what needs vcan where there is none: it then runs inside User Mode Linux."""

import os

import pytest

from lab import can_interfaces


@pytest.fixture(autouse=True)
def _vcan(request: pytest.FixtureRequest) -> None:
    if request.path.name == "test_user_mode_linux.py" or can_interfaces.available():
        return
    if os.environ.get("VCAN_INSIDE") == "1":
        pytest.fail("no vcan inside User Mode Linux: its modules did not load")
    pytest.skip("no vcan on this machine: test_user_mode_linux.py runs this inside User Mode Linux")
