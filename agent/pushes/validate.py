"""Check that this vehicle can use the documents of a release, before the release may be applied.

This file runs in the verifier process.  The rules of flags are programs, and a rule that never ends must not block the
agent.  Invariant: a release that passes was parsed by the same code that will apply it, and every flag was evaluated
for this vehicle.
"""

from collections.abc import Sequence

from agent.formats.down.audience import Attributes
from agent.formats.down.documents import KINDS, Kind, check_documents, read_documents
from agent.pushes.release import Release


def validate(release: Release, vehicle: Attributes, kinds: Sequence[Kind] = KINDS) -> None:
    """Check every document of `release`, first each by itself and then all together.

    Raises: Permanent naming the document, and the flag or field at fault.
    """
    check_documents(read_documents(release.documents, kinds), vehicle, kinds)
