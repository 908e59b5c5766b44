"""Reads mapping files and catalogs of VSS.

A mapping is a VSS tree or an overlay in JSON, or an overlay in YAML (`*.vspec`, `*.yaml`, `*.yml`).
"""

from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent
from agent.formats.down.mapping.catalog import Catalog, parse_catalog
from agent.formats.down.mapping.entries import VssMapping
from agent.formats.down.mapping.reading import parse_mapping
from agent.formats.down.strict import read_object

_YAML: Final = frozenset({".vspec", ".yaml", ".yml"})


def read_mapping(path: Path) -> VssMapping:
    """Read a mapping file.  Raises: Permanent, with the file, the VSS path or line, and the remedy."""
    content = _content(path, "mapping")
    if path.suffix in _YAML:
        return parse_mapping(_yaml(content, path), str(path))
    return parse_mapping(read_object(content, str(path), "a mapping, which is a JSON object"), str(path))


def read_catalog(path: Path) -> Catalog:
    """Read a catalog of VSS.  Raises: Permanent, with the file, the VSS path and the remedy."""
    return parse_catalog(
        read_object(_content(path, "catalog"), str(path), "a catalog, which is a JSON object"), str(path)
    )


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: the {what} cannot be read: {error.strerror or error}") from error


def _yaml(content: bytes, path: Path) -> object:
    """Return the content of a YAML 1.1 file, in which `yes` and `no` are truths."""
    # The vehicle reads JSON only, so PyYAML may be missing.
    try:
        import yaml
    except ImportError as error:
        raise Permanent(
            f"{path}: YAML needs PyYAML. Give the mapping as JSON, or install PyYAML in a checkout with: "
            "pip install '.[fleet]'"
        ) from error

    class Loader(yaml.SafeLoader):
        """Reads plain values, and refuses a key that occurs twice in one mapping."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (list, dict)) or key in keys:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} occurs twice or is no plain value; remove it", key_node.start_mark
                    )
                keys.add(key)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Permanent(f"{path}: this is not YAML: {error}") from error
