"""Refuses new documents that contradict published ones, or would take the place of one unnoticed."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.errors import Permanent
from agent.formats.down.documents import Document, Kind, refuse_two_definitions
from fleet.publishing import overlap


def refuse_conflicts(
    new: Iterable[Document],
    kept: Sequence[Document],
    published: Mapping[str, tuple[str, object]],
    field: Callable[[Document, str], object],
    kinds: Sequence[Kind],
) -> None:
    """Check the `new` documents against each other and against those that are published and stay (`kept`).

    `published` has the hash and the field `custom` of every published document, by the document's own path.  `field`
    returns the field `custom` that a new document would have, if its hash were the given one.

    Raises: Permanent naming both documents.
    """
    new = list(new)
    for kind in kinds:
        ours = [document for document in new if kind.name_in(document.path) is not None]
        refuse_two_definitions(kind, ours)
        for other in kept:
            if kind.name_in(other.path) is not None:
                sha256, custom = published[other.path]
                for document in ours:
                    if overlap.may_meet(field(document, sha256), custom):
                        refuse_two_definitions(kind, [other, document])
        for document in ours:
            if document.path in published:
                _refuse_to_take(kind, document, published[document.path], field)


def another_name(kind: Kind) -> str:
    """Return what to do so that a document of `kind` gets another name, for messages."""
    match kind.name:
        case "toggles":
            return 'Give the new one a name of its own ("metadata": {"flagSetId": "NAME"})'
        case "settings":
            return 'Give the new one a name of its own (name = "NAME" in its first line)'
    return "Rename one of them"


def _refuse_to_take(
    kind: Kind, document: Document, replaced: tuple[str, object], field: Callable[[Document, str], object]
) -> None:
    """Check that every vehicle that has the `replaced` document gets the new one.

    A campaign is exempt: it must have a name, so whoever publishes the name again means this campaign.
    """
    sha256, custom = replaced
    if kind.name == "campaign" or overlap.contains(field(document, sha256), custom):
        return
    raise Permanent(
        f"{document.source} would take the place of the published {document.path}, and some vehicles would lose that "
        f"document, because they are not in the new audience. {another_name(kind)}, or add "
        f"--remove-{kind.name} {kind.name_in(document.path)} to take the published document from them."
    )
