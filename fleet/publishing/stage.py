"""Publishes one stage of a staged roll-out: a new content of some documents for a share of the vehicles.

While a roll-out runs, each of its documents has two contents in the repository:

    the new content        for the audience of the roll-out, within the share of the stage
    the earlier content    for its earlier audience, except the vehicles that get the new content

The share of a later stage contains that of an earlier one.  All documents of a roll-out have one share, so a vehicle
gets all of their new contents or none.

    stage        new content                      earlier content
    -----        -----------                      ---------------
    0 %          withdrawn                        as it was before the roll-out
    1 to 99 %    for the share of the audience    except this share
    100 %        for the whole audience           except the audience, or withdrawn if no vehicle is left for it

Every call writes the whole stage under the next version, so a call may be repeated after a crash.  Vehicles never go
back in version: they get the earlier content under a higher version.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tuf.api.metadata import TargetFile

from agent.errors import Permanent
from agent.formats.down.audience import EXCEPT, Audience, audience_field
from agent.formats.down.documents import KINDS, Document, Kind, kind_of
from agent.formats.down.toggles import Toggles
from fleet.publishing import repository
from fleet.publishing.bins import renewed_bins
from fleet.publishing.bundle_size import bundle_bytes
from fleet.publishing.large import document_of
from fleet.publishing.large_sizes import refuse_too_much
from fleet.publishing.places import places_of
from fleet.publishing.population import Population
from fleet.publishing.publish import EXPIRY_DAYS, check_together
from fleet.publishing.staged import WHOLE, Earlier, share_name, within
from fleet.publishing.targets import hidden_path, read_stored, target_of
from fleet.publishing.toggle_answers import check_answers
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry


def earlier_targets(folder: FleetFolder, names: Sequence[str], kinds: Sequence[Kind] = KINDS) -> list[Earlier]:
    """Return the published targets of the documents with the paths `names`, which their own names give.

    Raises: Permanent if the repository is damaged.
    """
    targets = repository.read_state(folder.metadata).targets.targets
    places = places_of(
        {path: document_of(target, read_stored(folder, target)) for path, target in targets.items()}, kinds
    )
    return [
        Earlier(path, targets[path].hashes["sha256"], targets[path].length, targets[path].custom)
        for name in names
        for path in places.get(name, ())
    ]


def publish_stage(
    folder: FleetFolder,
    documents: Mapping[str, Document],
    earlier: Sequence[Earlier],
    *,
    audience: Audience,
    percent: float,
    now: datetime,
    kinds: Sequence[Kind] = KINDS,
    dry_run: bool = False,
) -> tuple[int, bool]:
    """Publish `documents` for a share of `audience`, and return the version of the targets.  `percent` is 0 to 100.

    The result also says whether this call has written the version.  It has not, if the stage was published already.

    `documents` maps own paths to documents.  `earlier` are the targets of these documents before the roll-out.  With
    `dry_run`, everything is checked and nothing is written.

    Raises: Permanent if a vehicle would refuse the documents; Transient if another publisher is at work.
    """
    with repository.locked(folder):
        state = repository.read_state(folder.metadata)
        before = state.targets.targets
        stored = {path: read_stored(folder, target) for path, target in before.items()}
        published = {path: document_of(target, stored[path]) for path, target in before.items()}
        places = places_of(published, kinds)
        others = {path: before[path] for own, paths in places.items() if own not in documents for path in paths}
        kept = {
            own: [(published[path], before[path]) for path in paths]
            for own, paths in places.items()
            if own not in documents
        }
        if percent > 0:
            selected, name = within(audience, percent), share_name(list(documents))
            check_together(
                documents, kept, lambda _, sha256: audience_field(selected, sha256, name) if selected else None, kinds
            )
        new, contents = _new_targets(documents, audience, percent, kinds)
        if dry_run and percent >= WHOLE:
            _check_answers(folder, documents.values(), new.values())
        rest = _rest(earlier, audience, percent, share_name(list(documents)))
        for target in rest:
            if target.path in new:
                raise Permanent(
                    f"The document {target.path} cannot be rolled out in stages, because its kind allows only one "
                    "document of this name at a time. Give the new document another name, or use `fleet publish`."
                )
        targets = {**others, **{target.path: target for target in rest}, **new}
        refuse_too_much(targets.values(), lambda: Population.of(Registry(folder.vehicles)))
        held = {target.path: read_stored(folder, target) for target in rest}
        bundle_bytes(folder, state, targets, {**stored, **held, **contents}, state.bins)
        if dry_run or targets == before:
            return state.versions.targets, False
        bins = renewed_bins(folder, state, now=now, expiry_days=EXPIRY_DAYS)
        written = repository.write_version(
            folder, state.versions, targets, contents, bins=bins, now=now, expiry_days=EXPIRY_DAYS
        )
        return written.targets, True


def _check_answers(folder: FleetFolder, documents: Iterable[Document], targets: Iterable[TargetFile]) -> None:
    """Evaluate the toggles among `documents` for the enrolled vehicles that will get them.

    Raises: Permanent naming the document and the flag that a vehicle could not use.
    """
    toggles = [pair for pair in zip(documents, targets, strict=True) if isinstance(pair[0].value, Toggles)]
    population = Population.of(Registry(folder.vehicles)) if toggles else Population({})
    for document, target in toggles:
        check_answers(document, population.reached(target))


def _new_targets(
    documents: Mapping[str, Document], audience: Audience, percent: float, kinds: Sequence[Kind]
) -> tuple[dict[str, TargetFile], dict[str, bytes]]:
    """Return the targets of the new contents and the files that are stored for them, by path.  None exist at 0 %."""
    targets: dict[str, TargetFile] = {}
    stored: dict[str, bytes] = {}
    if percent <= 0:
        return targets, stored
    name, selected = share_name(list(documents)), within(audience, percent)
    for own_path, document in documents.items():
        kind = kind_of(own_path, kinds)
        # A document for all vehicles has its own path, as `fleet publish` gives it.  A path that hides the name leaves
        # the own path to the earlier content.
        hidden = bool(selected) and kind is not None and kind.name_of is not None
        path = hidden_path(kind, document) if hidden and kind is not None else own_path
        targets[path], stored[path] = target_of(path, document.content, selected, name)
    return targets, stored


def _rest(earlier: Sequence[Earlier], audience: Audience, percent: float, name: str) -> list[TargetFile]:
    """Return the targets of the earlier contents, for the vehicles that do not get the new ones."""
    if percent <= 0:
        return [_target(each, each.custom) for each in earlier]
    rest = []
    for each in earlier:
        selected = within(audience, percent)
        if not selected:
            continue  # The new content is for every vehicle.
        custom = dict(each.custom or {})
        exception = audience_field(selected, each.sha256, name)["audience"]
        if custom.get("audience") == exception:
            continue  # The new content is for all vehicles that had the earlier one.
        rules = exception if isinstance(exception, list) else [exception]
        earlier_rules = custom.get(EXCEPT, [])
        custom[EXCEPT] = [*(earlier_rules if isinstance(earlier_rules, list) else [earlier_rules]), *rules]
        rest.append(_target(each, custom))
    return rest


def _target(earlier: Earlier, custom: dict[str, Any] | None) -> TargetFile:
    fields: dict[str, object] = {} if custom is None else {"custom": custom}
    return TargetFile(earlier.length, {"sha256": earlier.sha256}, earlier.path, fields)
