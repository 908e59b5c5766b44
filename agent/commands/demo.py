"""`headunit-agent demo`: starts the demonstration, a program of its own in `lab.demo`.

The demonstration plays the cloud side as well, which the agent must not import.
"""

import argparse
import importlib.util
import subprocess
import sys
from typing import Final

from agent.errors import Permanent

_NEEDED: Final = ("deltalake", "matplotlib")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration with the arguments in `options.passed_on` and return its exit status.

    Raises: Permanent if the extras are not installed.
    """
    if any(importlib.util.find_spec(library) is None for library in _NEEDED):
        raise Permanent("The demonstration needs the extras: pip install 'headunit-agent[fleet,demo]'")
    with subprocess.Popen([sys.executable, "-m", "lab.demo", *options.passed_on]) as demonstration:
        while True:
            try:
                return demonstration.wait()
            except KeyboardInterrupt:
                # A terminal interrupts the demonstration as well, which then ends its programs: wait for that.
                continue
