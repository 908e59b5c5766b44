"""Check documents, sign them and put them into the repository.  Vehicles fetch them from there.

    draft    reads and checks everything, and finds what changes for which vehicles; it needs no key and writes nothing
    publish  makes the draft again and signs it; it refuses if the draft is not the one that was approved

Invariant: nothing is signed that a vehicle would refuse.  Before any key is read, every new document passes the
vehicle's own parser.  All documents, new and already published, also pass the vehicle's checks together and fit into
one bundle.  Toggles are evaluated for the enrolled vehicles that get them.  Targets that a publication does not name
stay as they are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import TargetFile

from agent.errors import Permanent, Transient
from agent.formats.down.audience import EVERYONE, Audience, audience_field
from agent.formats.down.bundle import Versions
from agent.formats.down.documents import (
    KINDS,
    Document,
    Kind,
    check_documents,
    read_document,
    read_documents,
)
from agent.formats.down.toggles import Toggles
from fleet.publishing import repository
from fleet.publishing.bins import due_bins, renewed_bins
from fleet.publishing.bundle_size import bundle_bytes
from fleet.publishing.changes import Change, changes_of
from fleet.publishing.conflicts import another_name, refuse_conflicts
from fleet.publishing.databases import try_databases
from fleet.publishing.large import document_of
from fleet.publishing.large_sizes import refuse_too_much
from fleet.publishing.places import places_of, refuse_staged, remove_from
from fleet.publishing.population import Population
from fleet.publishing.targets import read_file, read_stored, target_of_document
from fleet.publishing.toggle_answers import check_answers
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

EXPIRY_DAYS: Final = 90
"""Days for which a signature is valid.  After that, vehicles must assume that an attacker withholds newer versions."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Says what to publish and what to withdraw, and for whom.

    `files` are pairs (name of the kind, path of a file), for the vehicles of `audience`.  `remove` are pairs (name of
    the kind, name of a document).  `staged` are the paths of the documents that a staged roll-out is publishing, which
    must not be among them.
    """

    files: Sequence[tuple[str, Path]] = ()
    remove: Sequence[tuple[str, str]] = ()
    audience: Audience = EVERYONE
    staged: Collection[str] = ()


NOTHING_NEW: Final = Publication()
"""Signs anew what is published."""


@dataclass(frozen=True, slots=True)
class Published:
    """Holds the result of a publication.

    `versions` are the version numbers of the published TUF metadata.  `targets` are the paths of all published
    documents, by their own names.  `bundle_bytes` is the size of the bundle that a vehicle from the factory gets if all
    documents are for it.
    """

    versions: Versions
    targets: tuple[str, ...]
    bundle_bytes: int


@dataclass(frozen=True, slots=True)
class Draft:
    """Holds what a publication would sign.

    `targets` are all targets after the publication, by path, and `contents` are the new files among them.  `before` and
    `after` are the targets before and after it, by the path that the document's own name gives.  A document of a staged
    roll-out has two targets.  `new` are the documents that the publisher gave.  `population` has the
    enrolled vehicles, and `changes` what changes for them; both are empty if no document changes.  `notes` say what
    vehicles repair or leave out in new databases.
    """

    state: repository.State
    targets: Mapping[str, TargetFile]
    contents: Mapping[str, bytes]
    before: Mapping[str, tuple[TargetFile, ...]]
    after: Mapping[str, tuple[TargetFile, ...]]
    new: tuple[Document, ...]
    bundle_bytes: int
    population: Population
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def taken_away(self) -> tuple[Change, ...]:
        """Return the changes that take a document away from vehicles, although its removal was not asked for."""
        return tuple(change for change in self.changes if change.lost and not change.withdrawn)


def draft(
    folder: FleetFolder,
    publication: Publication,
    *,
    kinds: Sequence[Kind] = KINDS,
    approved: Draft | None = None,
) -> Draft:
    """Check everything that `publish` would sign with the same arguments, and return it.  Nothing is written.

    The checks of the draft `approved` are not repeated, because `publish` refuses any other documents than those.

    Raises: Permanent, as `publish` does.
    """
    by_name = {kind.name: kind for kind in kinds}
    audience = publication.audience
    new = read_new([(by_name[kind], file) for kind, file in publication.files])
    state = repository.read_state(folder.metadata)
    before = state.targets.targets
    stored = {path: read_stored(folder, target) for path, target in before.items()}
    held = {path: document_of(target, stored[path]) for path, target in before.items()}
    places = places_of(held, kinds)
    published = {own_path: tuple(before[path] for path in paths) for own_path, paths in places.items()}
    removed = [remove_from(places, by_name[kind_name], name) for kind_name, name in publication.remove]
    refuse_staged([*new, *removed], publication.staged)
    kept = {own_path: paths for own_path, paths in places.items() if own_path not in new}
    if approved is None:
        notes = check_together(
            new,
            {own_path: [(held[path], before[path]) for path in paths] for own_path, paths in kept.items()},
            lambda document, sha256: audience_field(audience, sha256, document.path) if audience else None,
            kinds,
        )
    made = [target_of_document(document, audience, kinds) for document in new.values()]
    added, contents = [target for target, _ in made], {target.path: file for target, file in made}
    targets = {path: before[path] for paths in kept.values() for path in paths}
    targets |= {target.path: target for target in added}
    size = bundle_bytes(folder, state, targets, stored | contents, state.bins)
    after = {own_path: published[own_path] for own_path in kept}
    after |= {own_path: (target,) for own_path, target in zip(new, added, strict=True)}
    changes: tuple[Change, ...] = ()
    population = Population({})
    if approved is not None:
        population, changes, notes = approved.population, approved.changes, approved.notes
    elif targets != before or new:
        population = Population.of(Registry(folder.vehicles))
        refuse_too_much(targets.values(), lambda: population)
        changes = changes_of(published, after, population)
        staying = {path: held[path] for paths in kept.values() for path in paths}
        old = read_documents(staying, kinds, prefix="published ")
        pairs = [*zip(new.values(), added, strict=True), *((document, before[document.path]) for document in old)]
        for document, target in pairs:
            if isinstance(document.value, Toggles):
                check_answers(document, population.reached(target))
    return Draft(state, targets, contents, published, after, tuple(new.values()), size, population, changes, notes)


def publish(
    folder: FleetFolder,
    publication: Publication = NOTHING_NEW,
    *,
    now: datetime,
    expiry_days: int = EXPIRY_DAYS,
    kinds: Sequence[Kind] = KINDS,
    approved: Draft | None = None,
) -> Published:
    """Carry out `publication`.

    If no document changes, only the timestamp is signed anew, and it expires after `expiry_days` days.  Targets and
    snapshot are signed anew if a document changes, or if the old targets would expire before the new timestamp.
    `approved` is the draft that the publisher has seen, if there is one.

    Raises: Permanent if a document is refused (the message names the file and the fault) or the repository is damaged;
    Transient if another publisher is at work, or if a file or the repository has changed since the approved draft.
    """
    with repository.locked(folder):
        made = draft(folder, publication, kinds=kinds, approved=approved)
        state, targets = made.state, made.targets
        if approved is not None and (approved.targets, approved.before) != (targets, made.before):
            raise Transient(
                "A file or the repository has changed since the publication was shown. Run the command again."
            )
        # Targets that expire before this timestamp are signed again, even if they have not changed.
        needed_until = now + timedelta(days=expiry_days)
        is_same = targets == state.targets.targets and state.targets.expires > needed_until
        if is_same and not due_bins(folder, state, needed_until):
            versions = repository.refresh(folder, state, now=now, expiry_days=expiry_days)
        else:
            bins = renewed_bins(folder, state, now=now, expiry_days=expiry_days)
            versions = repository.write_version(
                folder, state.versions, targets, made.contents, bins=bins, now=now, expiry_days=expiry_days
            )
    return Published(versions, tuple(made.after), made.bundle_bytes)


def check_together(
    new: Mapping[str, Document],
    kept: Mapping[str, Sequence[tuple[bytes, TargetFile]]],
    field: Callable[[Document, str], object],
    kinds: Sequence[Kind] = KINDS,
) -> tuple[str, ...]:
    """Check the documents that vehicles will get together: `new`, and the contents of each document that is kept.

    `kept` has the contents of each document with their targets, by the path of its own name.  A vehicle gets one of the
    contents of a document, so each content is checked in its turn.  Documents that are published already are checked
    again, because older software may have checked them.  `field` returns the field `custom` that a new document will
    have, if its hash were the given one.

    Return the notes on the databases (see `try_databases`).

    Raises: Permanent naming the document at fault.
    """
    notes = dict[str, None]()
    for turn in range(max(map(len, kept.values()), default=1)):
        others = {own_path: contents[min(turn, len(contents) - 1)] for own_path, contents in kept.items()}
        published = read_documents({path: content for path, (content, _) in others.items()}, kinds, prefix="published ")
        check_documents([*new.values(), *published], None, kinds)
        notes |= dict.fromkeys(try_databases(new.values(), published))
        refuse_conflicts(new.values(), [(each, others[each.path][1]) for each in published], field, kinds)
    return tuple(notes)


def read_new(files: Sequence[tuple[Kind, Path]]) -> dict[str, Document]:
    """Read and parse the new files, and return the documents by the paths of their own names.

    Raises: Permanent if a file cannot be read, if a document is wrong, or if two documents have the same name.
    """
    found: dict[str, Document] = {}
    for kind, file in files:
        document = read_document(kind, read_file(file), str(file))
        if document.path in found:
            other = found[document.path].source
            if other == document.source:
                raise Permanent(f"{file} is given twice as --{kind.name}. Give it once.")
            raise Permanent(
                f"{file}: {other} has the same {kind.name} name. {another_name(kind)}, or publish only one."
            )
        found[document.path] = document
    return found
