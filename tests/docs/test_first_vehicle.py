"""The commands of docs/first-vehicle.md work as they stand there, from an empty folder to a toggle in an app."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.mosquitto import find_mosquitto, free_port
from lab.process import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-vehicle.md"
LEFT_OUT = ("make setup\n", "mkdir try\n")
"""The environment of the tests has been set up, and the folder exists."""

pytestmark = pytest.mark.integration


def blocks() -> list[str]:
    """Return the blocks of commands of the try on one machine."""
    text = PAGE.read_text().partition("## A try on one machine")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Shell:
    """A shell that runs one block after the other, with ports of its own in place of the documented ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8883": free_port(), "8884": free_port(), "8016": free_port()}
        shutil.copytree(ROOT / "config", folder / "config")
        laptop = folder / "config" / "mosquitto" / "laptop.conf"
        laptop.write_text(self.with_ports(laptop.read_text()))
        (folder / "try").mkdir()
        find_mosquitto()
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.process = subprocess.Popen(
            ["bash", "-e"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )

    def with_ports(self, text: str) -> str:
        for documented, port in self.ports.items():
            text = text.replace(documented, str(port))
        return text

    def run(self, block: str) -> str:
        """Run a block and return what it prints."""
        for line in LEFT_OUT:
            block = block.replace(line, "")
        # The default of this key is the documented port.
        block = block.replace("[uplink]\n", "[serve]\nport = 8016\n\n[uplink]\n")
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{self.with_ports(block)}\necho; echo '# end'\n")
        self.process.stdin.flush()
        shown = []
        for line in self.process.stdout:
            if line == "# end\n":
                return "".join(shown)
            shown.append(line)
        pytest.fail(f"this block failed:\n{block}\n{''.join(shown)}\n{self.logs()}")

    def until(self, command: str, *words: str) -> str:
        """Run a command again and again until it prints all of `words`."""
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while True:
            shown = self.run(f"{command.rstrip()} || true\n")
            if all(word in shown for word in words):
                return shown
            assert time.monotonic() < deadline_s, f"{command}\n{shown}\n{self.logs()}"
            time.sleep(0.5)

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in self.folder.glob("try/*.log"))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        # The session has this shell and the three programs, unless the page has ended them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.process.pid, signal.SIGKILL)
        shell.process.wait(PATIENCE_S)


def test_the_commands_bring_a_sample_to_the_lake_and_a_toggle_to_an_app(shell: Shell) -> None:
    asked = blocks()
    for number, block in enumerate(asked):
        if "fleet query" in block:
            shown = shell.until(block, "Engine.Speed", "Engine.Temperature")
            assert "90  degC" in shown
        elif "curl" in block:
            shell.until(block, '"key":"my-toggle"', '"variant":"on","value":true')
        elif "kill $agent" in block:
            assert number == len(asked) - 1
            shell.run(f"{block}wait $agent && wait $receiver\n")
        else:
            if "send.py" in block:
                shell.until("headunit-agent status --config agent.toml", "link      online")
            shown = shell.run(block)
            assert ("agent.toml: ok" in shown) == ("check" in block)
            assert ("OFREP True\nfile True" in shown) == ("app.py" in block)
    assert (shell.folder / "try" / "fleet-state" / "lake").is_dir()


def test_links_of_the_readme_and_of_the_guides_lead_to_files_and_headings() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)", page.read_text()):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                names = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
                assert anchor in names, f"{page.name}: {target}#{anchor}"
