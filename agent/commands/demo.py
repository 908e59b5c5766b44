"""`headunit-agent demo`: starts the demonstration (`lab.demo`) in another process.

The demonstration imports the cloud side, which the agent itself must not import.
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

    Raises: Permanent if a library of the demonstration is not installed.
    """
    if importlib.util.find_spec("lab") is None:
        raise Permanent("Head units do not get the demonstration; run `make demo` in a checkout of the project.")
    if any(importlib.util.find_spec(library) is None for library in _NEEDED):
        raise Permanent(
            "The demonstration needs further libraries. `make demo`, in a checkout of the project, installs them."
        )
    with subprocess.Popen([sys.executable, "-m", "lab.demo", *options.passed_on]) as demonstration:
        while True:
            try:
                return demonstration.wait()
            except KeyboardInterrupt:
                # Ctrl-C reaches the demonstration as well.  Wait until the demonstration has ended its programs.
                continue
