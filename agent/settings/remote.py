"""Read the settings that the fleet pushes (`settings.toml`), and lay them over the vehicle's own file.  Pure.

A document has the form of `agent.toml`, with the remote keys only (`agent.settings.sections`).  All are optional:

    name = "germany"              # the name of this document; without it, the document has the path settings.toml

    [uplink]
    backlog_kbit_s = 500

    [bus.can0]                    # the order, match and encodings of the pushed databases dbc/can0/*
    dbc = ["powertrain.dbc", {file = "body.dbc", encoding = "gbk"}]
    match = "exact"

A key that the document does not set keeps the value of the vehicle's own file.  When the document is withdrawn or
reverted, all keys have the values of that file again.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agent.errors import Mistakes, Permanent
from agent.settings.mistakes import explain, mistakes
from agent.settings.sections import SECTIONS, BusSettings, Settings, is_remote, remote_keys

DOCUMENT_BYTES: Final = 64_000
"""The size limit of one document, many times what all remote keys and the databases of ten buses need."""
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
"""The names of documents, and of buses whose databases can be pushed.  A name is one step of the path of a target."""
FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}\.dbc")
"""The names of pushed databases."""
# `uplink` must have a broker.  No document can set it, so any valid address stands in for that of the vehicle.
_STAND_IN: Final = {"uplink": {"broker": "broker.example:8883"}}


class RemoteSettings(msgspec.Struct, frozen=True):
    """Holds the settings of one document.

    `name` is empty if the document has no name.  `values` has the value of each key that the document sets, by section
    and key.  `buses` has the tables of buses.
    """

    name: str
    values: Mapping[str, Mapping[str, Any]]
    buses: Mapping[str, BusSettings]

    @property
    def keys(self) -> tuple[str, ...]:
        """Return what the document sets, such as `uplink.in_flight` and `bus.can0`."""
        set_keys = [f"{section}.{key}" for section, values in self.values.items() for key in values]
        return (*set_keys, *(f"bus.{bus}" for bus in self.buses))


def parse_remote(content: bytes, source: str) -> RemoteSettings:
    """Read a document (TOML, UTF-8).  Raises: Permanent naming `source`, each key at fault and the remedy."""
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise Permanent(f"{source}: this is not TOML in UTF-8: {error}") from error
    name = document.pop("name", "")
    if name != "" and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise Permanent(f"{source}: name: {name!r:.80} must have 1 to 60 letters, digits, '_' or '-'")
    found = [f"{source}: {each}" for each in _refusals(document)]
    if found:
        raise Mistakes(found)
    complete = document | {"uplink": _STAND_IN["uplink"] | document.get("uplink", {})}
    try:
        settings = msgspec.convert(complete, type=Settings)
    except msgspec.ValidationError as error:
        raise Mistakes([f"{source}: {explain(each, complete)}" for each in mistakes(complete, str(error))]) from error
    values = {
        section: {key: getattr(getattr(settings, section), key) for key in table}
        for section, table in document.items()
        if section in SECTIONS
    }
    parsed = RemoteSettings(name, values, settings.bus)
    if not parsed.keys:
        raise Permanent(f"{source}: the document sets no key; the fleet can set {', '.join(remote_keys())}, and bus.*")
    _check_files(parsed, source)
    return parsed


def laid_over(local: Settings, pushed: Iterable[RemoteSettings]) -> Settings:
    """Return the settings of the vehicle's own file with the values of the `pushed` documents in their place.

    The databases of buses are left as they are in the file; `agent.formats.down.databases` says which ones are pushed.
    """
    for document in pushed:
        sections = {
            section: msgspec.structs.replace(getattr(local, section), **values)
            for section, values in document.values.items()
        }
        local = msgspec.structs.replace(local, **sections)
    return local


def _refusals(document: Mapping[str, Any]) -> list[str]:
    """Return a message for each key that no document can set, and for each number that is not finite."""
    found: list[str] = []
    for section, table in document.items():
        if section == "bus":
            continue
        kind = SECTIONS.get(section)
        if kind is None or not isinstance(table, dict):
            found.append(_local_only(section))
            continue
        for key, value in table.items():
            where = f"{section}.{key}"
            if key in kind.__struct_fields__ and not is_remote(kind, key):
                found.append(_local_only(where))
            elif isinstance(value, float) and not math.isfinite(value):
                found.append(f"{where}: {value} is not a number that a limit can have; write a finite number")
    return found


def _local_only(key: str) -> str:
    return (
        f"{key:.100}: the fleet cannot set this; only the vehicle's own agent.toml can. "
        f"The fleet can set {', '.join(remote_keys())}, and bus.*"
    )


def _check_files(parsed: RemoteSettings, source: str) -> None:
    for bus, table in parsed.buses.items():
        if NAME.fullmatch(bus) is None:
            raise Permanent(
                f"{source}: bus.{bus:.80}: the name of a bus with pushed databases has 1 to 60 letters, digits, '_' "
                "or '-'; give the bus such a name in the vehicle"
            )
        files = [database.file for database in table.databases]
        for file in files:
            if FILE.fullmatch(file) is None:
                raise Permanent(
                    f"{source}: bus.{bus}.dbc: {file!r:.120} is not the name of a pushed database; write the name "
                    f"alone, such as 'powertrain.dbc', and publish the file as dbc/{bus}/powertrain.dbc"
                )
            if files.count(file) > 1:
                raise Permanent(f"{source}: bus.{bus}.dbc names {file} twice; name it once")
