"""Everything that an installation downloads is pinned and hashed, also what only builds the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLERS = ("Makefile", "README.md", "systemd/install-packages")
OFFLINE = {"--no-index", "--no-deps"}


def _calls(text: str) -> list[list[str]]:
    """Return the words of each call of `pip install` or `pip wheel`, joined over continued lines."""
    lines = text.replace("\\\n", " ").splitlines()
    return [call.split() for line in lines for call in re.findall(r"pip[\"']? (?:install|wheel) [^;&|`}]*", line)]


@pytest.mark.parametrize("name", INSTALLERS)
@pytest.mark.attack(
    "16",
    "a build dependency is exchanged in the registry",
    how="Every call of pip in Makefile, README and installer is read: it checks hashes, or it may download nothing.",
    before="fetched, neither pinned nor hashed",
)
def test_every_installation_checks_hashes_or_downloads_nothing(name: str) -> None:
    calls = _calls((ROOT / name).read_text())
    assert len(calls) >= 2
    for call in calls:
        words = set(call)
        assert "--require-hashes" in words or words >= OFFLINE, " ".join(call)
        # pip would otherwise download what builds a folder of sources into an environment of its own.
        assert "--require-hashes" in words or "--no-build-isolation" in words or ".whl" in call[-1], " ".join(call)


def test_every_requirement_of_a_build_has_one_version_and_a_hash() -> None:
    for name in ("build", "agent", "fleet", "dev"):
        content = re.sub(r" *#.*", "", (ROOT / "requirements" / f"{name}.txt").read_text()).replace("\\\n", " ")
        requirements = [line for line in content.splitlines() if line.strip()]
        assert requirements
        for line in requirements:
            assert re.fullmatch(r"[\w.-]+==[\w.]+( ;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line


def test_the_locked_tools_are_those_that_the_package_asks_for() -> None:
    asked = re.search(r'requires = \["([\w-]+)[^"]*"\]', (ROOT / "pyproject.toml").read_text())
    assert asked is not None
    assert (ROOT / "requirements" / "build.txt").read_text().count("==") == 1
    assert f"\n{asked[1]}==" in "\n" + (ROOT / "requirements" / "build.txt").read_text()
