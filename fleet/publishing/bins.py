"""Reads and writes the hash bins, which hold the lists of vehicles with documents of their own.

A bin is a TUF role that the targets role delegates to (agent/formats/down/own_list.py).  Only bins that have had a list
exist.  A bin that has become empty stays, because vehicles refuse a snapshot without a bin that they have seen.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Delegations, Metadata, MetaFile, SuccinctRoles, TargetFile, Targets

from agent.errors import Permanent
from agent.formats.down.own_list import BIN_BITS, BIN_NAME, BIN_PREFIX, list_path
from fleet.publishing import repository
from fleet.publishing.repository import Bins, State, bin_signer, write_bin
from fleet.state.folder import FleetFolder


def bin_of(state: State, vehicle: str) -> tuple[str, int] | None:
    """Return the name and the version of the bin of `vehicle`, or None if this bin does not exist."""
    bins = state.bins
    if bins is None or bins.delegations.succinct_roles is None:
        return None
    name = bins.delegations.succinct_roles.get_role_for_target(list_path(vehicle))
    entry = bins.versions.get(f"{name}.json")
    return None if entry is None else (name, entry.version)


def read_bin(folder: FleetFolder, name: str, version: int) -> Targets:
    """Return a published bin.  Raises: Permanent if its file is missing or damaged."""
    file = folder.metadata / f"{version}.{name}.json"
    try:
        return Metadata[Targets].from_file(str(file)).signed
    except (OSError, StorageError, RepositoryError) as error:
        raise Permanent(f"{file} is missing or damaged ({error}). Please restore it from the backup.") from error


class _Dated(msgspec.Struct):
    expires: datetime


class _Signed(msgspec.Struct):
    signed: _Dated


def _expiry(folder: FleetFolder, name: str, version: int) -> datetime:
    """Return when a bin expires.  Only this field is parsed, because all bins together may have 100 MB."""
    file = folder.metadata / f"{version}.{name}.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Signed).signed.expires
    except (OSError, msgspec.DecodeError) as error:
        raise Permanent(f"{file} is missing or damaged ({error}). Please restore it from the backup.") from error


def write_lists(folder: FleetFolder, bins: Bins, lists: Mapping[str, TargetFile | None], *, now: datetime) -> Bins:
    """Sign and write new versions of the bins in which `lists` change, and return all bins.

    `bins` are all bins up to now.  `lists` maps each vehicle to the target of its new list, or to None if the vehicle
    has no own documents any more.
    """
    roles = bins.delegations.succinct_roles
    assert roles is not None
    changes: dict[str, dict[str, TargetFile | None]] = {}
    for vehicle, target in lists.items():
        path = list_path(vehicle)
        changes.setdefault(roles.get_role_for_target(path), {})[path] = target
    versions = dict(bins.versions)
    for name, changed in sorted(changes.items()):
        entry = versions.get(f"{name}.json")
        targets = {} if entry is None else read_bin(folder, name, entry.version).targets
        targets |= {path: target for path, target in changed.items() if target is not None}
        kept = {path: target for path, target in targets.items() if changed.get(path, target) is not None}
        versions[f"{name}.json"] = _write(folder, name, entry, kept, now)
    return Bins(bins.delegations, versions)


def first_bins(folder: FleetFolder) -> Bins:
    """Return the delegation to the bins of a fleet in which no vehicle has had documents of its own."""
    return Bins(_delegations(folder, BIN_BITS), {})


def renewed_bins(folder: FleetFolder, state: State, *, now: datetime, expiry_days: int) -> Bins | None:
    """Return all bins, after signing those again that are due.  None means that there are no bins."""
    if state.bins is None:
        return None
    roles = state.bins.delegations.succinct_roles
    assert roles is not None
    versions = dict(state.bins.versions)
    for name in due_bins(folder, state, now + timedelta(days=expiry_days)):
        entry = versions[f"{name}.json"]
        versions[f"{name}.json"] = _write(folder, name, entry, read_bin(folder, name, entry.version).targets, now)
    return Bins(_delegations(folder, roles.bit_length), versions)


def due_bins(folder: FleetFolder, state: State, needed_until: datetime) -> list[str]:
    """Return the names of the bins to sign again: those that expire before `needed_until`, or all after a new key."""
    if state.bins is None:
        return []
    names = [(file.removesuffix(".json"), entry.version) for file, entry in state.bins.versions.items()]
    if bin_signer(folder).public_key.keyid not in state.bins.delegations.keys:
        return [name for name, _ in names]
    return [name for name, version in names if _expiry(folder, name, version) <= needed_until]


def first_expiry(folder: FleetFolder, state: State) -> datetime | None:
    """Return when the first bin expires, or None if there are no bins."""
    entries = {} if state.bins is None else state.bins.versions
    return min(
        (_expiry(folder, file.removesuffix(".json"), entry.version) for file, entry in entries.items()), default=None
    )


def largest_bin(folder: FleetFolder, bins: Bins | None) -> dict[str, bytes]:
    """Return the largest bin as a file of a bundle, or no file if there are no bins."""
    entries = {} if bins is None else bins.versions
    files = [folder.metadata / f"{entry.version}.{name}" for name, entry in entries.items()]
    if not files:
        return {}
    largest = max(files, key=lambda file: file.stat().st_size)
    return {f"metadata/{largest.name}": largest.read_bytes()}


def _write(
    folder: FleetFolder, name: str, entry: MetaFile | None, targets: Mapping[str, TargetFile], now: datetime
) -> MetaFile:
    version = 1 if entry is None else entry.version + 1
    expires = now + timedelta(days=repository.DOCUMENT_DAYS)
    document = Targets(version=version, expires=expires, targets=dict(targets), unrecognized_fields={BIN_NAME: name})
    return write_bin(folder, name, document)


def _delegations(folder: FleetFolder, bits: int) -> Delegations:
    """Return the delegation to the bins, with the present key."""
    key = bin_signer(folder).public_key
    return Delegations({key.keyid: key}, succinct_roles=SuccinctRoles([key.keyid], 1, bits, BIN_PREFIX))
