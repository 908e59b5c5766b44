"""Commands that change keys may run at the same time: they take turns, and none undoes what another has done."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from fleet.admin.enrol import enrol
from fleet.publishing.repository import read_state
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient, read_revocation_lists
from fleet.state.registry import Registry
from tests.fleet.vehicles import DEMO

NOW = datetime.now(UTC)


def at_once(fleet: FleetFolder, *commands: tuple[str, ...]) -> list[int]:
    running = [
        subprocess.Popen([sys.executable, "-m", "fleet", *words, "--fleet", str(fleet.root)], stdout=subprocess.DEVNULL)
        for words in commands
    ]
    return [process.wait(60) for process in running]


def test_no_revocation_is_lost_among_many_at_once(fleet: FleetFolder, tmp_path: Path) -> None:
    names = [enrol(fleet, tmp_path / f"{number}", DEMO, days=90, now=NOW).vehicle for number in range(8)]
    assert at_once(fleet, *(("revoke", name) for name in names)) == [0] * 8
    registry = Registry(fleet.vehicles)
    wanted = {registry.require(name).certificates[0].serial_number for name in names}
    assert {each.serial_number for one in read_revocation_lists(fleet.revocation_list) for each in one} == wanted


def test_two_rotations_of_the_sealing_key_publish_the_key_in_use(fleet: FleetFolder) -> None:
    assert at_once(fleet, *[("keys", "rotate", "sealing")] * 2) == [0, 0]
    target = read_state(fleet.metadata).targets.targets["recipient.json"]
    (published,) = fleet.targets.glob(f"{target.hashes['sha256']}.recipient.json")
    assert read_recipient(fleet).key_id in published.read_text()
