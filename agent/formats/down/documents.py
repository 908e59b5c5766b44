"""The table of the kinds of documents that a fleet publishes.  All code that handles documents iterates over the table.

    fleet publish   reads files as documents of a kind, and checks all documents of the new release together
    verification    unpacks the signed targets whose path belongs to a kind
    validation      checks all documents of the release together, in the child process
    applying        puts the documents into effect, kind by kind, in the order of the table

A new kind needs one row of `KINDS`, a module that parses its documents, and one effect (`agent/runtime/assembly.py`).

The fleet and the vehicle both ignore a target whose path belongs to no kind, because a fleet with newer software may
publish kinds that a vehicle does not know yet.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down import databases
from agent.formats.down.audience import Attributes
from agent.formats.down.authorities import DOCUMENT_BYTES as AUTHORITIES_BYTES
from agent.formats.down.authorities import parse_authorities
from agent.formats.down.campaign import DOCUMENT_BYTES as CAMPAIGN_BYTES
from agent.formats.down.campaign import parse_campaign, refuse_costly_globs, refuse_same_name
from agent.formats.down.evaluation import check_toggles, for_vehicle, vehicle_context
from agent.formats.down.mapping.pushed import DOCUMENT_BYTES as MAPPING_BYTES
from agent.formats.down.mapping.pushed import name_of_file as name_of_mapping_file
from agent.formats.down.mapping.pushed import parse_pushed_mapping
from agent.formats.down.recipient import DOCUMENT_BYTES as RECIPIENT_BYTES
from agent.formats.down.recipient import parse_recipient
from agent.formats.down.toggles import DOCUMENT_BYTES as TOGGLES_BYTES
from agent.formats.down.toggles import check_union, parse_toggles, union
from agent.settings.remote import DOCUMENT_BYTES as SETTINGS_BYTES
from agent.settings.remote import parse_remote


class Document(msgspec.Struct, frozen=True):
    """One parsed document.

    `path` is the path of the document's TUF target.  `source` names the document in error messages.  `value` is what
    the parser of its kind returned.
    """

    path: str
    source: str
    content: bytes
    value: Any


Documents = Mapping[str, Sequence[Document]]
"""The parsed documents of one release, by the name of their kind and in the order of their paths."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of documents, which is one row of the table.

    `name` is also the name of the option of `fleet publish` for such documents.  `pattern` is the path of a document;
    each `*` stands for a step of the document's name.  `size_bytes` is the size limit of a document.  `parse` takes the
    content and the source of a document, and returns its value.

    `name_of` takes a value, and returns the name that the document has in its path.  If the content does not have its
    name, `name_of` is None, and `name_of_file` takes the path of the file that is published.  `unnamed` is the path of
    the document that has no name, if there may be one.

    `defines` takes a value, and returns what only one document may define for any vehicle; `defined` is the word for
    one of them in messages.

    `check` takes all documents of a release, of every kind, and the attributes of a vehicle.  The attributes are None
    when the fleet checks a release for all vehicles before it publishes.  `parse` and `check` raise Permanent.
    """

    name: str
    pattern: str
    size_bytes: int
    help: str
    parse: Callable[[bytes, str], Any]
    name_of: Callable[[Any], str] | None
    check: Callable[[Documents, Attributes | None], None]
    name_of_file: Callable[[str], str] | None = None
    unnamed: str | None = None
    defines: Callable[[Any], Iterable[str]] | None = None
    defined: str = ""

    def name_in(self, path: str) -> str | None:
        """Return the name of the document at `path`, or None if the path does not belong to this kind."""
        if path == self.unnamed:
            return self.name
        # A path with an empty name or a deeper folder does not belong to the kind: `fleet publish` never writes it.
        found = _matcher(self.pattern).fullmatch(path)
        return None if found is None else "/".join(found.groups())

    def path_of(self, name: str) -> str:
        """Return the path of the document with this `name`."""
        if self.unnamed is not None and name in ("", self.name):
            return self.unnamed
        path = self.pattern
        for step in name.split("/"):
            path = path.replace("*", step, 1)
        return path


@lru_cache
def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "([^/]+)"))


def read_document(kind: Kind, content: bytes, source: str, path: str | None = None) -> Document:
    """Parse `content` as a document of `kind`.

    If `path` is None, the path is made from the name in the content, or else from `source`, the path of its file.

    Raises: Permanent naming `source` and the fault.
    """
    if len(content) > kind.size_bytes:
        raise Permanent(
            f"{source}: the document has {len(content):,} bytes; at most {kind.size_bytes:,} are allowed for its kind"
        )
    value = kind.parse(content, source)
    if path is None:
        path = kind.path_of(kind.name_of(value) if kind.name_of is not None else _name_of_file(kind, source))
    return Document(path, source, content, value)


def _name_of_file(kind: Kind, source: str) -> str:
    return "" if kind.name_of_file is None else kind.name_of_file(source)


def read_documents(contents: Mapping[str, bytes], kinds: Sequence[Kind], *, prefix: str = "") -> list[Document]:
    """Parse the documents in `contents`, which maps paths to contents.  Paths that belong to no kind are left out.

    Error messages name a document by `prefix` followed by its path.  Raises: Permanent naming the document at fault.
    """
    found = []
    for path, content in sorted(contents.items()):
        kind = kind_of(path, kinds)
        if kind is not None:
            found.append(read_document(kind, content, f"{prefix}{path}", path))
    return found


def by_kind(documents: Iterable[Document], kinds: Sequence[Kind]) -> Documents:
    """Group the documents of a release by the name of their kind.  A kind without documents has an empty list."""
    # The order of paths makes messages and effects independent of the order of arguments and of targets.
    ordered = sorted(documents, key=lambda document: document.path)
    return {kind.name: [each for each in ordered if kind.name_in(each.path) is not None] for kind in kinds}


def check_documents(documents: Iterable[Document], vehicle: Attributes | None, kinds: Sequence[Kind]) -> None:
    """Check all documents of a release together.

    The check evaluates toggles, whose rules are programs from outside.  A vehicle therefore calls this function only in
    the child process that verifies a bundle.

    Raises: Permanent naming the document at fault.
    """
    release = by_kind(documents, kinds)
    for kind in kinds:
        # The fleet checks the documents of all vehicles at once, and a vehicle gets only some of them.
        if vehicle is not None:
            refuse_two_definitions(kind, release[kind.name])
        kind.check(release, vehicle)


def refuse_two_definitions(kind: Kind, documents: Iterable[Document]) -> None:
    """Check that no two `documents` of `kind`, which one vehicle gets, define the same flag or key.

    Raises: Permanent naming both documents and what they define.
    """
    if kind.defines is None:
        return
    sources: dict[str, str] = {}
    for document in documents:
        for each in kind.defines(document.value):
            if each in sources:
                raise Permanent(
                    f"{document.source}: {kind.defined} {each!r} is also in {sources[each]}; a vehicle that gets both "
                    "could not tell which counts. Define it in one of them, or give them audiences that no vehicle "
                    "shares."
                )
            sources[each] = document.source


def kind_of(path: str, kinds: Sequence[Kind]) -> Kind | None:
    """Return the kind that `path` belongs to, or None."""
    return next((kind for kind in kinds if kind.name_in(path) is not None), None)


def _check_toggles(release: Documents, vehicle: Attributes | None) -> None:
    documents = release[TOGGLES.name]
    if vehicle is None:
        # The fleet checks for all vehicles, so it evaluates each document alone, without facts about a vehicle.
        for document in documents:
            check_toggles(document.value, document.source, ())
    elif documents:
        source = ", ".join(document.source for document in documents)
        definitions = [document.value for document in documents]
        check_union(definitions, source)
        check_toggles(for_vehicle(union(definitions), vehicle), source, (vehicle_context(vehicle),))


def _check_databases(release: Documents, vehicle: Attributes | None) -> None:
    # The tables of a vehicle must fit the databases of this vehicle.  The fleet's documents are for many vehicles.
    if vehicle is not None:
        databases_in(release)


def databases_in(release: Documents) -> list[databases.PushedBus]:
    """Return the pushed databases of each bus.  Raises: Permanent if tables and databases do not fit together."""
    contents = {document.path: document.content for document in release[DATABASE.name]}
    return databases.pushed_buses(contents, [(each.source, each.value) for each in release[SETTINGS.name]])


def _check_settings(_: Documents, __: Attributes | None) -> None:
    """Check nothing more: each document is complete in itself."""


def _check_campaigns(release: Documents, _: Attributes | None) -> None:
    refuse_same_name((document.source, document.value) for document in release[CAMPAIGN.name])
    refuse_costly_globs((document.source, document.value) for document in release[CAMPAIGN.name])


def _check_nothing(_: Documents, __: Attributes | None) -> None:
    """Check nothing: the parser of this kind has checked all that can be checked."""


TOGGLES: Final = Kind(
    name="toggles",
    pattern="toggles/*.json",
    unnamed="toggles.json",
    size_bytes=TOGGLES_BYTES,
    help="flagd flag definition (JSON); its name is metadata.flagSetId",
    parse=parse_toggles,
    name_of=lambda toggles: str(toggles.name),
    check=_check_toggles,
    defines=lambda toggles: toggles.kinds,
    defined="flag",
)
SETTINGS: Final = Kind(
    name="settings",
    pattern="settings/*.toml",
    unnamed="settings.toml",
    size_bytes=SETTINGS_BYTES,
    help="settings (TOML) with keys that config/agent.toml marks as remote; its name is the key `name`",
    parse=parse_remote,
    name_of=lambda settings: str(settings.name),
    check=_check_settings,
    defines=lambda settings: settings.keys,
    defined="key",
)
DATABASE: Final = Kind(
    name="database",
    pattern="dbc/*/*",
    size_bytes=databases.DOCUMENT_BYTES,
    help="database (DBC) in a folder with the name of its bus, such as can0/powertrain.dbc",
    parse=databases.parse_database,
    name_of=None,
    name_of_file=databases.name_of_file,
    check=_check_databases,
)
MAPPING: Final = Kind(
    name="mapping",
    pattern="mapping/*.json",
    size_bytes=MAPPING_BYTES,
    help="mapping (JSON) from CAN signals to VSS paths, in KUKSA's dbc2vss form",
    parse=parse_pushed_mapping,
    name_of=None,
    name_of_file=name_of_mapping_file,
    check=_check_nothing,
    defines=lambda mapping: [entry.path for entry in mapping.entries],
    defined="VSS path",
)
CAMPAIGN: Final = Kind(
    name="campaign",
    pattern="campaigns/*.json",
    size_bytes=CAMPAIGN_BYTES,
    help="campaign (JSON)",
    parse=parse_campaign,
    name_of=lambda campaign: str(campaign.name),
    check=_check_campaigns,
)
RECIPIENT: Final = Kind(
    name="recipient",
    pattern="recipient.json",
    size_bytes=RECIPIENT_BYTES,
    help="the fleet's public sealing key (JSON); `fleet keys rotate sealing` publishes it",
    parse=parse_recipient,
    name_of=None,
    check=_check_nothing,
)
AUTHORITIES: Final = Kind(
    name="authorities",
    pattern="authorities.pem",
    size_bytes=AUTHORITIES_BYTES,
    help="the authorities of the broker's certificate (PEM); `fleet keys rotate authority` publishes them",
    parse=parse_authorities,
    name_of=None,
    check=_check_nothing,
)
KINDS: Final = (TOGGLES, AUTHORITIES, SETTINGS, DATABASE, MAPPING, CAMPAIGN, RECIPIENT)
"""All kinds, in the order in which a release is applied.

Toggles and authorities come first, because only the writing of their files can fail on the disk.  If the disk refuses,
nothing has changed yet.  Databases come before campaigns, which name their signals.  The kinds `mapping/*` and
`signals/*.json` will stand between them.
"""
