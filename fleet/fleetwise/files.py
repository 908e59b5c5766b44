"""Reads the files that a user gives: JSON, and YAML where PyYAML is installed."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent
from fleet.fleetwise.recognition import Document, Unreadable, documents_in

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest file.  A catalogue with 100,000 nodes takes 30 MB; YAML takes some 20 times its size in memory."""
_YAML: Final = (".yaml", ".yml", ".template")


def read_files(files: Iterable[Path]) -> Iterator[Document | Unreadable]:
    """Yield the documents in `files`.  A file that is neither JSON nor YAML is yielded as Unreadable.

    Raises: Permanent if a file cannot be opened.
    """
    for file in files:
        try:
            content = file.read_bytes() if file.stat().st_size <= MAX_BYTES else None
        except OSError as error:
            raise Permanent(f"{file} cannot be read ({error.strerror or error}). Check the path.") from error
        if content is None:
            yield Unreadable(str(file), "", "", "file", f"the file has more than {MAX_BYTES // 1024**2} MB; split it")
            continue
        try:
            parsed = _parsed(content.decode("utf-8-sig"), file)
        except (ValueError, RecursionError) as error:
            yield Unreadable(
                str(file), "", "", "file", f"this is neither JSON nor YAML: {' '.join(str(error).split())}"
            )
            continue
        yield from documents_in(parsed, str(file))


def _parsed(text: str, file: Path) -> Any:
    """Return the content of a file.  Raises: ValueError, with line and column."""
    if file.suffix.lower() not in _YAML or text.lstrip()[:1] in ("{", "["):
        return json.loads(text, object_pairs_hook=_unique)
    from fleet.fleetwise.yaml_text import parse_yaml  # noqa: PLC0415  # needs the extra `fleet`

    return parse_yaml(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259, section 4: readers differ in which of two equal keys they use.
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} occurs twice in one object; remove one of them")
    return found
