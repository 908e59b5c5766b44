"""Reads mappings that the fleet pushes (`mapping/<name>.json`).  Pure.

A vehicle reads JSON only.  A pushed mapping is for all buses; an entry names `Message.Signal` where buses differ.
"""

import re
from typing import Final

from agent.errors import Permanent
from agent.formats.down.mapping.entries import VssMapping
from agent.formats.down.mapping.reading import parse_mapping
from agent.formats.down.strict import read_object

DOCUMENT_BYTES: Final = 2_000_000
"""The size limit of one mapping: four times a whole tree of VSS 4.2 with a mapping."""
_FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,59}\.json")


def parse_pushed_mapping(content: bytes, source: str) -> VssMapping:
    """Parse a mapping in JSON.  Raises: Permanent, with the file, the VSS path and the remedy."""
    return parse_mapping(read_object(content, source, "a mapping, which is a JSON object"), source)


def name_of_file(file: str) -> str:
    """Return the name of a mapping from the path of its file.

    Raises: Permanent if the file is not JSON, or if its name has a character that a path of a target cannot have.
    """
    name = file.rpartition("/")[2]
    if _FILE.fullmatch(name) is None:
        raise Permanent(
            f"{file}: a vehicle reads mappings in JSON, from files with at most 65 letters, digits, '_', '-' and '.' "
            "in their names; write an overlay in YAML as JSON, or rename the file to car.json, for example"
        )
    return name.removesuffix(".json")
