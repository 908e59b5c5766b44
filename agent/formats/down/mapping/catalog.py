"""Reads a catalog of the Vehicle Signal Specification (VSS), which is the JSON that vss-tools writes.  Pure.

A catalog says which paths a version of VSS has, and of what type and unit each is.  The project has no catalog of its
own: the fleet gives the one of its version.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from agent.errors import Permanent

_LIKENESS: Final = 0.5
"""Paths that were moved share less than misspelt ones, but end with the same name."""
_DEPTH: Final = 30
_VERSION: Final = ("Major", "Minor", "Patch")
_VERSION_BRANCH: Final = "VersionVSS"


class CatalogLeaf(msgspec.Struct, frozen=True):
    """Holds what a catalog says about one path.

    `allowed` has the allowed values, and is empty if all values are allowed.  `deprecation` is empty for a path that
    stays.
    """

    datatype: str
    unit: str | None = None
    allowed: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    deprecation: str = ""


class Catalog(msgspec.Struct, frozen=True):
    """The leaves of a catalog by path, its branches, and its version, which is empty if the catalog names none."""

    source: str
    version: str
    leaves: Mapping[str, CatalogLeaf]
    branches: frozenset[str]

    @property
    def title(self) -> str:
        """Return the name of the catalog for error messages."""
        return f"VSS {self.version}" if self.version else self.source

    def nearest(self, path: str) -> str | None:
        """Return the path that `path` may have been moved to or misspelt from, or None.

        Paths that end with the same name come first.
        """
        name = path.rpartition(".")[2]
        alike = [known for known in self.leaves if known.rpartition(".")[2] == name]
        for known in (alike, list(self.leaves)):
            found = get_close_matches(path, known, n=1, cutoff=_LIKENESS if known is alike else 0.8)
            if found:
                return found[0]
        return None


def parse_catalog(document: object, source: str) -> Catalog:
    """Parse a catalog, whose JSON has been read already; `source` names the file.

    Raises: Permanent, with the file, the path and the remedy.
    """
    if not isinstance(document, dict) or not document:
        raise Permanent(f"{source}: this is not a catalog, which is a JSON object with the branch Vehicle")
    leaves: dict[str, CatalogLeaf] = {}
    branches: set[str] = set()
    defaults: dict[str, object] = {}
    for path, node in _nodes(document, "", source, 0):
        if "children" in node:
            branches.add(path)
            continue
        leaves[path] = _leaf(path, node, source)
        defaults[path] = node.get("default")
    if not leaves or not branches:
        raise Permanent(
            f"{source}: this is not a catalog, because it has no branch with leaves; write one with: "
            "vspec export json --vspec VehicleSignalSpecification.vspec --output vss.json"
        )
    return Catalog(source, version_of(defaults), leaves, frozenset(branches))


def version_of(defaults: Mapping[str, object]) -> str:
    """Return the version of VSS that the leaves of `Vehicle.VersionVSS` name by their defaults, or "".

    `defaults` has the defaults of leaves by path.
    """
    roots = {path.split(".", 1)[0] for path in defaults}
    for root in sorted(roots):
        numbers = [defaults.get(f"{root}.{_VERSION_BRANCH}.{part}") for part in _VERSION]
        if isinstance(numbers[0], int):
            version = ".".join(str(number or 0) for number in numbers)
            label = defaults.get(f"{root}.{_VERSION_BRANCH}.Label")
            return f"{version}-{label}" if isinstance(label, str) and label else version
    return ""


def _nodes(nodes: Mapping[str, Any], prefix: str, source: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in nodes.items():
        path = f"{prefix}{name}"
        if not isinstance(node, dict):
            raise Permanent(f"{source}: {path}: a branch or leaf of a catalog is an object")
        if "instances" in node:
            raise Permanent(f"{source}: {path}: the instances are not expanded; write the catalog without --no-expand")
        yield path, node
        children = node.get("children", {})
        if not isinstance(children, dict) or depth == _DEPTH:
            raise Permanent(f"{source}: {path}: children must be an object from names to nodes, at most {_DEPTH} deep")
        yield from _nodes(children, f"{path}.", source, depth + 1)


def _leaf(path: str, node: Mapping[str, Any], source: str) -> CatalogLeaf:
    datatype = node.get("datatype")
    if not isinstance(datatype, str):
        raise Permanent(f"{source}: {path}: the leaf has no datatype, so this is not a catalog of vss-tools")
    unit, allowed = node.get("unit"), node.get("allowed")
    return CatalogLeaf(
        datatype,
        unit if isinstance(unit, str) else None,
        tuple(allowed) if isinstance(allowed, list) else (),
        _number(node.get("min")),
        _number(node.get("max")),
        str(node.get("deprecation", "")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def differences(old: CatalogLeaf, new: CatalogLeaf) -> Iterable[str]:
    """Say in words what differs between two versions of one leaf."""
    if old.datatype != new.datatype:
        yield f"the datatype changes from {old.datatype} to {new.datatype}"
    if old.unit != new.unit:
        yield f"the unit changes from {old.unit or 'none'} to {new.unit or 'none'}"
    for word, before, after in (("minimum", old.minimum, new.minimum), ("maximum", old.maximum, new.maximum)):
        if before != after:
            yield f"the {word} changes from {_limit(before)} to {_limit(after)}"
    if set(map(repr, old.allowed)) != set(map(repr, new.allowed)):
        yield f"the allowed values change from {_values(old.allowed)} to {_values(new.allowed)}"
    if new.deprecation and not old.deprecation:
        yield f"the path becomes deprecated ({new.deprecation})"


def _limit(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"


def _values(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values)) or "any"
