"""Tell the present boot of this machine from every other boot."""

import os
from pathlib import Path
from typing import Final

BOOT_ID: Final = "HEADUNIT_BOOT_ID"
"""The environment variable by which systemd tells the boot id, because the sandbox of the service hides /proc/sys."""
_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the random id of this boot as 32 hex digits, or an empty string if the machine does not tell it."""
    told = os.environ.get(BOOT_ID) or (_FILE.read_text().strip() if _FILE.exists() else "")
    return told.replace("-", "")  # systemd and the kernel write the same id in two ways.
