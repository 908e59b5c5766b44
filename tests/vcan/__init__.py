"""Tests on virtual CAN interfaces, with can-utils and python-can as counterparts.

The tests run directly if the machine has vcan (`ip link add type vcan` works).  If not, test_user_mode_linux.py runs
them inside User Mode Linux, on the machine's own file system.  Variables of the environment:

- REQUIRE_VCAN=1 boots User Mode Linux if it is needed, and fails if the machine has neither.
- VCAN_SECONDS is the length of the sustained load in seconds (3, or 60 with REQUIRE_VCAN=1).
- VCAN_KILLS is how often the agent is killed (2, or 20 with REQUIRE_VCAN=1).
- VCAN_CUTS is how often the power is cut (2, or 4 with REQUIRE_VCAN=1; `make cuts` is the long form).
- VCAN_ARGS are pytest options for the run inside User Mode Linux, such as "-k kill".
"""

from typing import Final

PATIENCE_S: Final = 240
"""How long a test waits for the agent.

Inside User Mode Linux on a slow machine, a first start takes more than a minute: an import of numpy alone takes two
seconds, and the files of the libraries are read for the first time.
"""
