"""The verifier is confined before it reads a byte, and by then it has imported all that any bundle may need."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from agent.formats.down.audience import parse_audience
from agent.pushes.release import Question, Reason, Verdict
from tests.agent.pushes.world import NOW, Fleet, campaign, question, toggles
from tests.conformance.repository import ALL, Repository

# The program that a test runs in place of the verifier: the verifier with a judge that reports what it imports.
WATCHED = """
import sys
from agent.pushes import verifier

def watched(question):
    before = set(sys.modules)
    verdict = verifier.judge(question)
    sys.stderr.write(f"imported late: {sorted(set(sys.modules) - before)}")
    return verdict

sys.exit(verifier.main(watched))
"""
RULES: list[Any] = [
    {"fractional": [["on", 50], ["off", 50]]},
    {"if": [{"sem_ver": [{"var": "model"}, ">=", "1.0.0"]}, "on", "off"]},
    {"if": [{"starts_with": [{"var": "brand"}, "A"]}, "on", {"if": [{"ends_with": ["a", "b"]}, "on", "off"]}]},
    {"if": [{">": [{"var": "$flagd.timestamp"}, 1]}, "on", "off"]},
    {"if": [{"in": [{"var": "market"}, ["DE", "FR"]]}, "on", "off"]},
    {"if": [{"some": [[1, 2], {"==": [{"var": ""}, 1]}]}, "on", "off"]},
]


def good(fleet: Fleet) -> Question:
    fleet.publish(toggles(), campaign())
    return question(fleet, fleet.bundle())


def shared(fleet: Fleet) -> Question:
    fleet.publish(toggles(), campaign(), audience=parse_audience("brand=Nova;brand=Aria,percent=99.99"))
    return question(fleet, fleet.bundle())


def tampered(fleet: Fleet) -> Question:
    fleet.publish(toggles())
    files = fleet.files()
    files["metadata/timestamp.json"] = files["metadata/timestamp.json"].replace(b"snapshot.json", b"snapshoT.json")
    return question(fleet, files)


def truncated(fleet: Fleet) -> Question:
    fleet.publish(toggles())
    files = fleet.files()
    return question(fleet, {name: files[name] for name in files if not name.startswith("targets/")})


def expired(fleet: Fleet) -> Question:
    fleet.publish(toggles(), now=NOW - timedelta(days=200))
    return question(fleet, fleet.bundle())


def rubbish(fleet: Fleet) -> Question:
    return question(fleet, b"\xff" * 100)


def invalid(fleet: Fleet) -> Question:
    fleet.sign_as_is("campaigns/x.json", b'{"name": "x"}')
    return question(fleet, fleet.bundle())


def misspelt(fleet: Fleet) -> Question:
    fleet.sign_as_is("settings.toml", b"[uplink]\nin_flght = 3")
    return question(fleet, fleet.bundle())


def configured(fleet: Fleet) -> Question:
    fleet.sign_as_is("settings.toml", b"[uplink]\nmetered_lanes = ['events']\n[bus.can0]\ndbc = ['a.dbc']")
    fleet.sign_as_is("dbc/can0/a.dbc", b"BO_ 1 M: 8 A")
    return question(fleet, fleet.bundle())


def rotated(fleet: Fleet) -> Question:
    fleet.rotate_root(("root1", "root2"), replace_key="timestamp")
    return good(fleet)


def signed_by(new_key: Callable[[], CryptoSigner], fleet: Fleet) -> Question:
    """Return a question about a bundle whose roles all have a key of another type, which must have signed."""
    repository = Repository()
    for role in ALL:
        repository.add_key(role, new_key())
        repository.root.roles[role].threshold = 2
    repository.publish(*ALL)
    return question(fleet, repository.bundle(), trusted_root=repository.first_root)


CASES: dict[Callable[[Fleet], Question], Reason | None] = {
    good: None,
    shared: None,
    rotated: None,
    tampered: Reason.TAMPERED,
    truncated: Reason.TRUNCATED,
    expired: Reason.EXPIRED,
    rubbish: Reason.MALFORMED,
    invalid: Reason.INVALID,
    misspelt: Reason.INVALID,
    configured: None,
}


def imported_late(asked: Question) -> tuple[str, Reason | None]:
    """Return what the verifier imports after it was confined, and its verdict."""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", WATCHED], input=msgspec.json.encode(asked), capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stderr.decode(), msgspec.json.decode(ended.stdout, type=Verdict).reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_is_imported_late_for_a_bundle_that_is(case: Callable[[Fleet], Question], fleet: Fleet) -> None:
    said, reason = imported_late(case(fleet))
    assert said == "imported late: []"
    assert reason is CASES[case]


@pytest.mark.parametrize(
    "new_key",
    [CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa, CryptoSigner.generate_ed25519],
    ids=["ECDSA", "RSA", "Ed25519"],
)
def test_nothing_is_imported_late_for_keys_of(new_key: Callable[[], CryptoSigner], fleet: Fleet) -> None:
    assert imported_late(signed_by(new_key, fleet)) == ("imported late: []", None)


@pytest.mark.parametrize("rule", RULES, ids=json.dumps)
def test_nothing_is_imported_late_for_a_rule(rule: dict[str, Any], fleet: Fleet) -> None:
    fleet.publish(toggles(targeting=rule))
    assert imported_late(question(fleet, fleet.bundle())) == ("imported late: []", None)


def test_the_verifier_has_one_thread_when_it_is_confined() -> None:
    """Landlock, capabilities and seccomp confine the thread that asks for them, and those that it starts later."""
    script = """
import os
from agent.pushes import verifier

def confine():
    print(len(os.listdir("/proc/self/task")), flush=True)
    os._exit(0)

verifier.confine = confine
verifier.main()
"""
    ended = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "1\n"
