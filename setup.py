"""Write the time of the build into the package; everything else about the package stands in pyproject.toml.

The agent takes this time as the earliest possible one while the clock of a car is unset (see `agent/pushes/built.py`).
"""

import os
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_STAMP = "agent/pushes/built_at_s.txt"


class BuildWithTime(build_py):
    """Build the package as usual, and add the file with the time."""

    def run(self) -> None:
        """Build, then write the stamp, which SOURCE_DATE_EPOCH determines in reproducible builds."""
        super().run()
        if self.editable_mode:
            return  # The installed package is the checkout, whose files carry their own times.
        built_at_s = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        (Path(self.build_lib) / _STAMP).write_text(f"{built_at_s}\n", encoding="ascii")


setup(cmdclass={"build_py": BuildWithTime})
