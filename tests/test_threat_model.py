"""Each line of the threat model names tests, and each named test exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
SHOWN = "| shown by |"
NAME = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ATTACKERS = (
    "Broker and network",
    "Cloud operator",
    "Thief with the head unit",
    "App on the head unit",
    "One stolen signing key",
    "Malicious vehicle",
)


def claims() -> list[str]:
    """Return the lines of all tables that say what holds and what does not."""
    found, shown = [], False
    for line in TEXT.splitlines():
        shown = line.endswith(SHOWN) or (shown and line.startswith("|"))
        if shown and not line.endswith(SHOWN) and not line.startswith("|---"):
            found.append(line)
    return found


@cache
def functions_of(file: Path) -> frozenset[str]:
    if not file.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.split("|")[1].strip()[:60])
def test_each_claim_names_tests_and_each_of_them_exists(claim: str) -> None:
    named = NAME.findall(claim)
    assert named, "the claim names no test"
    missing = [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)]
    assert missing == []


def test_each_attacker_has_what_holds_and_what_does_not() -> None:
    sections = {part.split("\n")[0]: part for part in TEXT.split("\n## ")}
    for attacker in ATTACKERS:
        assert "| holds |" in sections[attacker], attacker
        assert "| does not hold |" in sections[attacker], attacker
    assert len(claims()) > 30
