"""Finds the PIN of a token: in a file, in the environment, or by asking.  It is never on the command line."""

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import Permanent

VARIABLE: Final = "FLEET_PIN"
"""The environment variable that may hold the PIN."""


@dataclass(frozen=True, slots=True)
class PinSource:
    """Knows where the PIN comes from.  `file` None means the environment, or else the person at the terminal."""

    file: Path | None = None

    def read(self, token: str) -> str:
        """Return the PIN of the token with the label `token`.

        Raises: Permanent if the file cannot be read, if there is neither a file, a variable nor a terminal, or if the
        PIN is empty.
        """
        if self.file is not None:
            pin = self._from_file(self.file)
        elif VARIABLE in os.environ:
            pin = os.environ[VARIABLE]
        elif sys.stdin.isatty():
            try:
                pin = getpass.getpass(f"PIN of the token {token}: ")
            except EOFError:
                pin = ""
        else:
            raise Permanent(
                f"The token {token} needs its PIN. Give --pin-file FILE, set the variable {VARIABLE}, or run the "
                "command in a terminal, where it asks."
            )
        if not pin:
            raise Permanent(
                f"The PIN of the token {token} is empty. Write it into the PIN file or the variable {VARIABLE}, or "
                "type it when the command asks."
            )
        return pin

    @staticmethod
    def _from_file(file: Path) -> str:
        try:
            return file.read_text().rstrip("\r\n")
        except OSError as error:
            raise Permanent(
                f"The PIN file {file} cannot be read ({error.strerror}). Check the path of --pin-file or pin-source."
            ) from error
        except UnicodeDecodeError as error:
            raise Permanent(f"The PIN file {file} is not text. It must hold the PIN and nothing else.") from error
