"""`headunit-agent check --effective`: shows each setting in force, and where its value comes from.

    default        the key is not set
    file           the vehicle's own agent.toml sets the key
    release 7      release 7 of the fleet sets the key, and so takes the place of the file

The release is read from the disk, so the answer is the same with and without a running agent.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.formats.down.documents import DATABASE, SETTINGS, by_kind, databases_in, read_documents
from agent.pushes.release import Release
from agent.pushes.store import release_on_disk
from agent.settings import settings as configuration
from agent.settings.sections import SECTIONS, Section, is_remote
from agent.settings.settings import Loaded


class Value(msgspec.Struct, frozen=True):
    """Holds the value of one key.  `remote` says whether the fleet can set the key."""

    value: Any
    origin: str
    remote: bool


def show(file: Path, *, as_json: bool) -> int:
    """Print the settings in force for the configuration `file`, and return 0.

    Raises: Permanent if the file is wrong, or if the store of pushes cannot be read.
    """
    loaded = configuration.load(file)
    release = release_on_disk(loaded.path(loaded.settings.state.folder) / "pushes")
    values = effective(loaded, release)
    version = None if release is None else release.version
    if as_json:
        report = {"file": str(file), "release": version, "settings": msgspec.to_builtins(values)}
        print(json.dumps(report, indent=2))
        return 0
    width = max(map(len, values), default=0)
    shown = {key: json.dumps(msgspec.to_builtins(each.value), ensure_ascii=False) for key, each in values.items()}
    wide = max(map(len, shown.values()), default=0)
    for key, each in values.items():
        print(f"{'*' if each.remote else ' '} {key:<{width}}  {shown[key]:<{wide}}  {each.origin}")
    print(f"{file}: {'no release' if version is None else f'release {version}'} in force; * the fleet can set this key")
    return 0


def effective(loaded: Loaded, release: Release | None) -> dict[str, Value]:
    """Return each key of the configuration with its value.  Keys of `[[sources]]` are numbered as in messages.

    Raises: Permanent if the file or a document of the release cannot be read.
    """
    document = tomllib.loads(loaded.file.read_text(encoding="utf-8"))
    found: dict[str, Value] = {}
    for number, source in enumerate(loaded.settings.sources):
        for key, value in _of_table(f"sources[{number}]", source, document["sources"][number]):
            found[key] = value
    for bus, table in loaded.settings.bus.items():
        found.update(_of_table(f"bus.{bus}", table, document["bus"][bus]))
    for section in SECTIONS:
        found.update(_of_table(section, getattr(loaded.settings, section), document.get(section, {})))
    if release is not None:
        found.update(_of_release(release))
    # The databases of a bus can be pushed as well.
    return {key: each if not key.startswith("bus.") else _remote(each) for key, each in found.items()}


def _of_table(name: str, table: Section, given: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for key in table.__struct_fields__:
        origin = "file" if key in given else "default"
        yield f"{name}.{key}", Value(getattr(table, key), origin, is_remote(type(table), key))


def _of_release(release: Release) -> Iterator[tuple[str, Value]]:
    origin = f"release {release.version}"
    documents = by_kind(read_documents(release.documents, (SETTINGS, DATABASE)), (SETTINGS, DATABASE))
    for document in documents[SETTINGS.name]:
        for section, values in document.value.values.items():
            for key, value in values.items():
                yield f"{section}.{key}", Value(value, origin, remote=True)
    for bus in databases_in(documents):
        named = [
            each.path if each.encoding is None else {"file": each.path, "encoding": each.encoding}
            for each in bus.databases
        ]
        yield f"bus.{bus.bus}.dbc", Value(named, origin, remote=True)
        if bus.match is not None:
            yield f"bus.{bus.bus}.match", Value(bus.match, origin, remote=True)


def _remote(value: Value) -> Value:
    return msgspec.structs.replace(value, remote=True)
