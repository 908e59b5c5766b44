"""`fleet simulate`: run many virtual vehicles against a real broker and real receivers.

The simulation is a separate program with its own command line (`lab/simulate`), because the fleet's programs must not
import from `lab`.
"""

import argparse
import importlib.util
import subprocess
import sys
from typing import Final

from agent.errors import Permanent
from fleet.commands.arguments import INSTALL

SUMMARY: Final = "run many virtual vehicles against a real broker and real receivers"


def run(args: argparse.Namespace) -> int:
    """Run the simulation and return its exit status.  `args.rest` holds the arguments after `simulate`."""
    if importlib.util.find_spec("lab") is None:
        raise Permanent("Head units do not get the simulation; run `make simulate` in a checkout of the project.")
    # Without this check the simulation would fail on the import, with a traceback.
    if importlib.util.find_spec("deltalake") is None:
        raise Permanent(f"The package deltalake is not installed. {INSTALL}")
    with subprocess.Popen([sys.executable, "-m", "lab.simulate", *args.rest]) as simulation:
        while True:
            try:
                return simulation.wait()
            except KeyboardInterrupt:
                # Ctrl-C interrupts the simulation as well.  The simulation then ends its own programs, so keep waiting.
                continue
