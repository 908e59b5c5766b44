"""`fleet simulate`: many virtual vehicles against a real broker and real receivers.

The simulation is a program of its own, with a command line of its own (`lab/simulate`): the fleet's programs import
nothing of the laboratory.
"""

import argparse
import importlib.util
import subprocess
import sys
from typing import Final

from agent.errors import Permanent

SUMMARY: Final = "many virtual vehicles against a real broker and real receivers"


def run(args: argparse.Namespace) -> int:
    """Run the simulation with `args.rest`, the words of the command line after `simulate`; return its exit status."""
    # Asked here, because the other program could only fail on the import.
    if importlib.util.find_spec("deltalake") is None:
        raise Permanent("deltalake is not installed: pip install 'headunit-agent[fleet]'")
    with subprocess.Popen([sys.executable, "-m", "lab.simulate", *args.rest]) as simulation:
        while True:
            try:
                return simulation.wait()
            except KeyboardInterrupt:
                # The terminal interrupts the simulation as well, which then ends its own programs: wait for that.
                continue
