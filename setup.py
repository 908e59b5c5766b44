"""Write the time of the build into the package; everything else about the package is in pyproject.toml.

While the clock of a car is unset, the agent assumes a time no earlier than the build (see `agent/pushes/built.py`).
"""

import os
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_STAMP = "agent/pushes/built_at_s.txt"


class BuildWithTime(build_py):
    """Builds the package as usual, and adds a file with the time of the build."""

    def run(self) -> None:
        """Build the package, then write the current time, or SOURCE_DATE_EPOCH for a reproducible build."""
        super().run()
        if self.editable_mode:
            return  # An editable installation uses the files of the checkout, which have their own times.
        built_at_s = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        (Path(self.build_lib) / _STAMP).write_text(f"{built_at_s}\n", encoding="ascii")


setup(cmdclass={"build_py": BuildWithTime})
