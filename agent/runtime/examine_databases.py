"""Examine a bundle together with the databases that its release brings.

The verifier of bundles does not compile databases, because most bundles bring none, and it must stay cheap.  Its
verdict comes first, so only databases that the fleet has signed reach the compiler (`agent.settings.compiler`).
"""

import hashlib
from functools import partial

import msgspec

from agent.errors import Permanent
from agent.formats.down.chunks import unpack
from agent.formats.down.documents import DATABASE, SETTINGS, by_kind, databases_in, read_documents
from agent.pushes.examine import examine
from agent.pushes.pushes import Examiner
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.settings.pushed_plans import PushedPlans


def examine_with(plans: PushedPlans, *, examine_bundle: Examiner = examine) -> Examiner:
    """Return a function that examines a bundle with `examine_bundle`, and then compiles its databases with `plans`."""
    return partial(_examine, plans, examine_bundle)


async def _examine(plans: PushedPlans, examine_bundle: Examiner, question: Question) -> Verdict:
    verdict = await examine_bundle(question)
    if verdict.reason is not None or verdict.release is None:
        return verdict
    kinds = (SETTINGS, DATABASE)
    documents = _with_large(verdict.release, question).documents
    try:
        for bus in databases_in(by_kind(read_documents(documents, kinds), kinds)):
            await plans.prepare(bus)
    except Permanent as error:
        # The signatures are genuine, so the metadata is kept and the version is not offered again.
        return msgspec.structs.replace(verdict, reason=Reason.INVALID, detail=str(error), release=None)
    return verdict


def _with_large(release: Release, question: Question) -> Release:
    """Return `release` with its large documents, whose packed files are in `question`.

    Raises: Untrusted if one is missing, which only a forged verdict can bring about.
    """
    packed = {hashlib.sha256(content).hexdigest(): content for content in question.contents} if release.large else {}
    contents = {
        path: unpack(packed.get(sha256, b""), document_bytes)
        for path, (sha256, document_bytes) in release.large.items()
    }
    return release.with_large(contents)
