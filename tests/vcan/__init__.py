"""Tests on virtual CAN interfaces, with can-utils and python-can on the other side.

They run directly where the machine has vcan (`ip link add type vcan` works), else inside User Mode Linux, which
test_user_mode_linux.py boots on the machine's own file system.  REQUIRE_VCAN=1: having neither is a failure.
VCAN_SECONDS: how long the sustained load lasts (default 10; 60 with REQUIRE_VCAN=1).  VCAN_KILLS: how often the agent
is killed (default 5; 20 with REQUIRE_VCAN=1).  VCAN_ARGS: pytest options for the run inside, such as "-k kill".
"""
