"""The commands of the staged roll-out in docs/publishing.md work on a real fleet folder, in the order of the page."""

import re
import shlex
from pathlib import Path

import pytest

from fleet.__main__ import main
from tests.agent.pushes.world import campaign
from tests.fleet.rollout.rolled import Rolled

PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"
EARLIER, NEW = campaign("brakes", 1_000), campaign("brakes", 2_000)


def commands() -> list[str]:
    text = PAGE.read_text().partition("## Publish in stages")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_a_roll_out_goes_through_the_commands_of_the_page_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rolled = Rolled(tmp_path)
    rolled.publish(EARLIER)
    rolled.file(NEW)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet-state").symlink_to(rolled.folder.root)  # the default of --fleet
    ran = []
    for command in commands():
        program, action, name, *words = shlex.split(command, comments=True)
        assert (program, action) == ("fleet", "rollout")
        ran.append(name)
        if name == "run":
            continue  # the roll-out would take days; its end is looked at below
        if name == "back":
            for _ in "stages":
                assert main(["rollout", "step", "--lake", rolled.lake.uri, "--now"]) == 0
            assert main(["rollout", "run", "--lake", rolled.lake.uri]) == 0
            assert "is done" in capsys.readouterr().out
            assert rolled.having(NEW) == rolled.all_names()
        status = main(["rollout", name, "--lake", rolled.lake.uri, *words])
        assert status == 0, f"{command}: {capsys.readouterr().err}"
        shown = capsys.readouterr().out
        if words == ["--now"]:
            assert "The operator ended the stage of 1 %." in shown
    assert set(ran) == {"start", "status", "run", "step", "pause", "resume", "back"}
    assert rolled.having(EARLIER) == rolled.all_names()
