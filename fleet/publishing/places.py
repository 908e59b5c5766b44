"""Finds under which paths documents are published, and which of them a staged roll-out holds.

A document has a path that its own name gives.  A document for some vehicles only is published under another path, which
hides its name.
"""

from collections.abc import Collection, Mapping, Sequence

from agent.errors import Permanent
from agent.formats.down.documents import Kind, kind_of, read_document


def places_of(stored: Mapping[str, bytes], kinds: Sequence[Kind]) -> dict[str, list[str]]:
    """Return the paths under which each document is published, by the path that its own name gives.

    A staged roll-out publishes two contents of a document, for different vehicles.  The document then has two paths.
    """
    places: dict[str, list[str]] = {}
    for path, content in stored.items():
        places.setdefault(_own_path(path, content, kinds), []).append(path)
    return places


def _own_path(path: str, content: bytes, kinds: Sequence[Kind]) -> str:
    """Return the path that the document's own name gives.  `path` is the path under which it is published."""
    kind = kind_of(path, kinds)
    try:
        return path if kind is None or kind.name_of is None else read_document(kind, content, path).path
    except Permanent:
        # A document that cannot be read keeps its path, under which it can be removed.  If it is not removed, the check
        # of all documents reports it.
        return path


def remove_from(places: dict[str, list[str]], kind: Kind, name: str) -> str:
    """Remove a document from `places`, and return the path of its own name."""
    if places.pop(kind.path_of(name), None) is None:
        there = [found for path in places if (found := kind.name_in(path)) is not None]
        raise Permanent(
            f"The {kind.name} {name!r} cannot be removed, because it is not published. "
            f"Published names of this kind: {', '.join(there) or 'none'}."
        )
    return kind.path_of(name)


def refuse_staged(named: Sequence[str], staged: Collection[str]) -> None:
    """Check that no document in `named` is one of `staged`, which a staged roll-out publishes.

    Raises: Permanent naming the document.
    """
    for path in named:
        if path in staged:
            raise Permanent(
                f"A staged roll-out is publishing the document {path}. Let it end, or take it back with "
                "`fleet rollout back`, and publish then."
            )
