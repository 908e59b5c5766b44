"""The table of the kinds of documents that a fleet publishes.  All code that handles documents iterates over the table.

    fleet publish   reads files as documents of a kind, and checks all documents of the new release together
    verification    unpacks the signed targets whose path belongs to a kind
    validation      checks all documents of the release together, in the child process
    applying        puts the documents into effect, kind by kind, in the order of the table

A new kind needs one row of `KINDS`, a module that parses its documents, and one effect in `agent/runtime/apply.py`.

The fleet and the vehicle both ignore a target whose path belongs to no kind, because a fleet with newer software may
publish kinds that a vehicle does not know yet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.authorities import DOCUMENT_BYTES as AUTHORITIES_BYTES
from agent.formats.down.authorities import parse_authorities
from agent.formats.down.campaign import DOCUMENT_BYTES as CAMPAIGN_BYTES
from agent.formats.down.campaign import parse_campaign, refuse_costly_globs, refuse_same_name
from agent.formats.down.evaluation import check_toggles, for_vehicle, vehicle_context
from agent.formats.down.recipient import DOCUMENT_BYTES as RECIPIENT_BYTES
from agent.formats.down.recipient import parse_recipient
from agent.formats.down.toggles import DOCUMENT_BYTES as TOGGLES_BYTES
from agent.formats.down.toggles import parse_toggles


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

    `name` is also the name of the option of `fleet publish` for such documents.  `pattern` is the path of a document; a
    `*` stands for the name of the document.  `size_bytes` is the size limit of a document.  `parse` takes the content
    and the source of a document, and returns its value.  `name_of` takes a value, and returns the name that the
    document has in its path.  `name_of` is None if a release has only one document of this kind.

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

    def name_in(self, path: str) -> str | None:
        """Return the name of the document at `path`, or None if the path does not belong to this kind."""
        before, star, after = self.pattern.partition("*")
        if not star:
            return self.name if path == self.pattern else None
        name = path.removeprefix(before).removesuffix(after)
        # A path with an empty name or a deeper folder does not belong to the kind: `fleet publish` never writes it.
        return name if name and "/" not in name and path == f"{before}{name}{after}" else None

    def path_of(self, name: str) -> str:
        """Return the path of the document with this `name`."""
        return self.pattern.replace("*", name)


def read_document(kind: Kind, content: bytes, source: str, path: str | None = None) -> Document:
    """Parse `content` as a document of `kind`.

    If `path` is None, the path is made from the name in the content.

    Raises: Permanent naming `source` and the fault.
    """
    if len(content) > kind.size_bytes:
        raise Permanent(
            f"{source}: the document has {len(content):,} bytes; at most {kind.size_bytes:,} are allowed for its kind"
        )
    value = kind.parse(content, source)
    own_path = kind.path_of("" if kind.name_of is None else kind.name_of(value))
    return Document(path or own_path, source, content, value)


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
        kind.check(release, vehicle)


def kind_of(path: str, kinds: Sequence[Kind]) -> Kind | None:
    """Return the kind that `path` belongs to, or None."""
    return next((kind for kind in kinds if kind.name_in(path) is not None), None)


def _check_toggles(release: Documents, vehicle: Attributes | None) -> None:
    for document in release[TOGGLES.name]:
        # The fleet checks for all vehicles, so it evaluates without facts about a vehicle.
        if vehicle is None:
            check_toggles(document.value, document.source, ())
        else:
            check_toggles(for_vehicle(document.value, vehicle), document.source, (vehicle_context(vehicle),))


def _check_campaigns(release: Documents, _: Attributes | None) -> None:
    refuse_same_name((document.source, document.value) for document in release[CAMPAIGN.name])
    refuse_costly_globs((document.source, document.value) for document in release[CAMPAIGN.name])


def _check_nothing(_: Documents, __: Attributes | None) -> None:
    """Check nothing: the parser of this kind has checked all that can be checked."""


TOGGLES: Final = Kind(
    name="toggles",
    pattern="toggles.json",
    size_bytes=TOGGLES_BYTES,
    help="flagd flag definition (JSON)",
    parse=parse_toggles,
    name_of=None,
    check=_check_toggles,
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
KINDS: Final = (TOGGLES, AUTHORITIES, CAMPAIGN, RECIPIENT)
"""All kinds, in the order in which a release is applied.

Toggles and authorities come first, because writing their files are the only steps that the disk can refuse.  If the
disk refuses, nothing has changed yet.
"""
