"""The commands of the guides work as they stand there, and print what the guides show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = re.compile(r"in \d+\.\d s")


def run(commands: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("guide", ["kuksa-mappings.md"])
def test_the_commands_of_a_guide_print_what_it_shows(guide: str, tmp_path: Path) -> None:
    printed, shown = "", 0
    for kind, text in BLOCK.findall((GUIDES / guide).read_text()):
        if kind == "sh":
            printed = SECONDS.sub("in N s", run(text, tmp_path))
        else:
            assert SECONDS.sub("in N s", text) in printed
            shown += 1
    assert shown
