"""Writes the mapping from fully qualified names to signals of a DBC, in the form of KUKSA's CAN provider.  Pure.

The mapping is a VSS tree in JSON.  Every sample is kept (`interval_ms` 0), because FleetWise decoders drop none.
"""

from collections.abc import Mapping
from typing import Any, Final

_DATATYPE: Final = {
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "UINT16": "uint16",
    "INT32": "int32",
    "UINT32": "uint32",
    "INT64": "int64",
    "UINT64": "uint64",
    "BOOLEAN": "boolean",
    "FLOAT": "float",
    "DOUBLE": "double",
}
_UNKNOWN: Final = "double"


class MappingError(Exception):
    """Raised if a name cannot stand in a tree; `fqn` is the name."""

    def __init__(self, fqn: str) -> None:
        super().__init__(f"{fqn} is a signal and a branch at once; rename one of them")
        self.fqn = fqn


def tree_of(signals: Mapping[str, str], datatypes: Mapping[str, str], units: Mapping[str, str]) -> dict[str, Any]:
    """Return the VSS tree of a mapping.

    `signals` has `Message.Signal` by fully qualified name.  `datatypes` (in the spelling of FleetWise) and `units` come
    from the signal catalogue, and may lack names.

    Raises: MappingError.
    """
    root: dict[str, Any] = {}
    for fqn, name in sorted(signals.items()):
        *branches, last = fqn.split(".")
        level = root
        for step in branches:
            branch = level.setdefault(step, {"type": "branch", "description": step, "children": {}})
            if branch["type"] != "branch":
                raise MappingError(fqn)
            level = branch["children"]
        if last in level:
            raise MappingError(fqn)
        leaf: dict[str, Any] = {
            "type": "sensor",
            "datatype": _DATATYPE.get(datatypes.get(fqn, ""), _UNKNOWN),
            "description": f"imported from AWS IoT FleetWise: {fqn}",
        }
        if units.get(fqn):
            leaf["unit"] = units[fqn]
        leaf["dbc2vss"] = {"signal": name, "interval_ms": 0}
        level[last] = leaf
    return root
