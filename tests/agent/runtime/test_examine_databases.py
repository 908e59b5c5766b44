"""A database is compiled before its release is stored, whether it came in the bundle or in chunks."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from agent.errors import Untrusted
from agent.formats.down.chunks import pack
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.runtime.examine_databases import examine_with
from agent.settings.pushed_plans import PushedPlans
from tests.agent.car import DATABASES
from tests.agent.pushes.world import Fleet, question

PATH = "dbc/can0/body.dbc"
GOOD = (DATABASES / "demo_body.dbc").read_bytes()


def verdict_of(content: bytes, folder: Path, *, held: bool = True) -> Verdict:
    """Return the verdict on a release whose database has come in chunks, and which the verifier has accepted."""
    packed = pack(content)
    release = Release(2, {}, {PATH: (hashlib.sha256(packed).hexdigest(), len(content))})

    async def accept(_: Question) -> Verdict:
        return Verdict(release=release)

    examine = examine_with(PushedPlans(folder / "plans", {}), examine_bundle=accept)
    return asyncio.run(examine(question(Fleet(folder / "fleet"), b"", contents=(packed,) if held else ())))


def test_a_large_database_is_compiled_before_its_release_is_stored(tmp_path: Path) -> None:
    verdict = verdict_of(GOOD, tmp_path)
    assert verdict.reason is None
    assert verdict.release is not None
    assert verdict.release.documents == {}
    assert list((tmp_path / "plans").iterdir())


def test_a_large_database_that_cannot_be_compiled_is_refused(tmp_path: Path) -> None:
    verdict = verdict_of(b"hello", tmp_path)
    assert (verdict.reason, verdict.release) == (Reason.INVALID, None)
    assert PATH in verdict.detail


def test_a_forged_verdict_about_a_document_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Untrusted):
        verdict_of(GOOD, tmp_path, held=False)
