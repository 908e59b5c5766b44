"""Refuses new documents that contradict published ones."""

from collections.abc import Callable, Iterable, Sequence

from tuf.api.metadata import TargetFile

from agent.formats.down.documents import Document, Kind, refuse_two_definitions
from fleet.publishing import overlap


def refuse_conflicts(
    new: Iterable[Document],
    kept: Iterable[tuple[Document, TargetFile]],
    field: Callable[[Document, str], object],
    kinds: Sequence[Kind],
) -> None:
    """Check the `new` documents against each other and against those that are published and stay.

    `kept` has these, each with its target.  `field` returns the field `custom` that a new document would have, if its
    hash were the given one.

    Raises: Permanent naming both documents.
    """
    new, kept = list(new), list(kept)
    for kind in kinds:
        ours = [document for document in new if kind.name_in(document.path) is not None]
        refuse_two_definitions(kind, ours)
        for other, target in kept:
            if kind.name_in(other.path) is not None:
                for document in ours:
                    if overlap.may_meet(field(document, target.hashes["sha256"]), target.custom):
                        refuse_two_definitions(kind, [other, document])


def another_name(kind: Kind) -> str:
    """Return what to do so that a document of `kind` gets another name, for messages."""
    match kind.name:
        case "toggles":
            return 'Give the new one a name of its own ("metadata": {"flagSetId": "NAME"})'
        case "settings":
            return 'Give the new one a name of its own (name = "NAME" in its first line)'
    return "Rename one of them"
