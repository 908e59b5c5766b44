"""Read pushed JSON strictly, and refuse JSON that two readers could understand differently.  Pure.

Every kind of JSON document is read here first.  The module of the kind then checks the fields.
"""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from agent.errors import Permanent, nearest

_NAME_LETTERS: Final = 60
"""A message shows at most this many letters of an unknown field, because the field comes from outside."""


def read_object(document: bytes, source: str, what: str) -> dict[str, Any]:
    """Return the JSON object (UTF-8) in `document`.

    `source` is the file that error messages name.  `what` says what the document should be, such as "a campaign".  If
    the JSON is not an object, the error message is "this is not", followed by `what`.

    Raises: Permanent for bytes that are not JSON, a key that occurs twice in one object, and a number that is not
    finite.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # RFC 8259, section 4: readers differ in which of two equal keys they use.
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise Permanent(f"{source}: key {twice!r} occurs twice in one object; remove one of them.")
        return found

    def finite(text: str) -> float:
        # Python reads NaN, Infinity and 1e999 as numbers that are not finite.  RFC 8259 (section 6) has no such
        # numbers, and other readers fail on them.
        number = float(text)
        if not math.isfinite(number):
            raise Permanent(f"{source}: {text} is not a number that JSON can carry; write a finite number.")
        return number

    try:
        content = json.loads(document.decode(), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
        # The reader accepts an escaped half of a surrogate pair ("\ud800"), but no encoder can write it again.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Permanent(f"{source}: this is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Permanent(f"{source}: this is not {what}.")
    return content


def refuse_unknown(fields: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Check that all `fields` are in `known`.

    `where` names the file and the object that has the fields.

    Raises: Permanent that names the first unknown field, and a similar known field if there is one.
    """
    for name in fields:
        if name not in known:
            close = nearest(name, known)
            remedy = f"did you mean {close!r}?" if close else f"the known fields are {', '.join(sorted(known))}."
            raise Permanent(f"{where}: unknown field {name[:_NAME_LETTERS]!r}; {remedy}")
