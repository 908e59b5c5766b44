"""Every command of docs/keys.md works on a real fleet folder, in the order of the page."""

import re
import shlex
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.admin.enrol import enrol
from fleet.state.folder import ROOT_KEYS, FleetFolder
from tests.fleet.admin.test_key_list import NOW
from tests.fleet.conftest import fleet
from tests.fleet.softhsm import PIN, Tokens
from tests.fleet.vehicles import DEMO

__all__ = ["fleet"]

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_every_command_of_the_runbook_works(
    fleet: FleetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vehicle = enrol(fleet, tmp_path / "car", DEMO, days=90, now=NOW).vehicle
    (tmp_path / "safe").mkdir()
    for name in ROOT_KEYS:
        fleet.key(name).rename(tmp_path / "safe" / f"{name}.pem")
    fleet.root.rename(tmp_path / "fleet-state")  # the default of --fleet
    monkeypatch.chdir(tmp_path)
    ran = []
    tokens: Tokens | None = None
    for command in commands():
        if "pkcs11:" in command and tokens is None:
            pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: make setup")
            tokens = Tokens.make(tmp_path / "hsm", monkeypatch)  # skips here without SoftHSM
            tokens.token("root-1")
            monkeypatch.setenv("PKCS11_MODULE", str(tokens.library))
            monkeypatch.setenv("FLEET_PIN", PIN)
        program, *words = shlex.split(command.replace("VEHICLE", vehicle))
        assert program == "fleet"
        assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
        ran.append(" ".join(words[: 3 if words[1:2] in (["root"], ["renew"], ["rotate"]) else 2]))
    verbs = {"list", "sign", "reissue", "reinstate", "reenrol", "rotate sealing", "rotate authority"}
    verbs |= {"renew broker", "renew receiver", "root start", "root key", "root sign", "root import"}
    assert {f"keys {verb}" for verb in verbs} <= set(ran)
