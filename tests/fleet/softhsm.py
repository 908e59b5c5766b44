"""Makes PKCS#11 tokens with SoftHSM, and keys in them with OpenSC's `pkcs11-tool`, a program other than the tested one.

Where Debian's softhsm2 or opensc is not installed, a test is skipped with the reason.  With REQUIRE_SHARED=1 it fails.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PIN = "4711-pin"
_LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")


def library() -> Path:
    """Return SoftHSM's library.  Without it the calling test is skipped or fails."""
    found = [Path(path) for path in _LIBRARIES if Path(path).exists()]
    if found and shutil.which("softhsm2-util") and shutil.which("pkcs11-tool"):
        return found[0]
    reason = "SoftHSM or OpenSC is not installed: apt-get install softhsm2 opensc"
    if os.environ.get("REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one folder, and the library that shows no others."""

    folder: Path
    library: Path

    @classmethod
    def make(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> "Tokens":
        """Make a folder for tokens, which SoftHSM uses in this test and in the programs that it starts."""
        made = cls(folder, library())
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm.conf"))
        return made

    @property
    def pin_file(self) -> Path:
        file = self.folder / "pin"
        file.write_text(f"{PIN}\n")
        return file

    @property
    def options(self) -> list[str]:
        """Return the options of `fleet keys root` that reach the tokens."""
        return ["--module", str(self.library), "--pin-file", str(self.pin_file)]

    def token(self, label: str) -> None:
        """Make a token."""
        _run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin-1")

    def key(self, token: str, label: str, kind: str = "EC:prime256v1", *more: str, key_id: str = "01") -> str:
        """Make a key in a token, and return its URI."""
        self.tool(token, "--keypairgen", "--key-type", kind, "--label", label, "--id", key_id, "--usage-sign", *more)
        return f"pkcs11:token={token};object={label}"

    def tool(self, token: str, *words: str) -> str:
        """Run `pkcs11-tool`, and return what it prints."""
        return _run("pkcs11-tool", "--module", str(self.library), "--token-label", token, "-p", PIN, *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
