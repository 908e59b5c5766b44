"""Skips tests that need vcan if the machine has none.  Then test_user_mode_linux.py runs them."""

import os

import pytest

from lab import can_interfaces


@pytest.fixture(autouse=True)
def _vcan(request: pytest.FixtureRequest) -> None:
    if request.path.name == "test_user_mode_linux.py" or can_interfaces.available():
        return
    if os.environ.get("VCAN_INSIDE") == "1":
        pytest.fail("User Mode Linux has no vcan, because its modules did not load")
    pytest.skip("this machine has no vcan; test_user_mode_linux.py runs this test inside User Mode Linux")
