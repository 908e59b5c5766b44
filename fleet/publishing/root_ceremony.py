"""Sign a new root with keys that never leave their safes: export what to sign, sign offline, import the signatures.

    start    on the publisher    writes the ceremony: the present root and the unsigned next one
    sign     on an offline PC    reads the ceremony and one root key, and writes one signature
    import   on the publisher    checks the signatures, publishes the root, and signs everything with its keys

The next root takes the place of keys that were lost or stolen, and it is valid for fifteen years again.  It must be
signed by two root keys of the present root and by two of the next one.  Usually the same two keys do both.

Invariants: a private root key is needed by `sign` only.  A new key of an online role waits as `keys/<role>.next.pem`
until the root that names it is published.  An interrupted import is completed by running it again.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import CryptoSigner, Key, Signature, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import CanonicalJSONSerializer

from agent.errors import Permanent
from agent.formats.down.bundle import Versions
from agent.system.durable import remove, write_file
from fleet.publishing import repository
from fleet.publishing.bins import renewed_bins
from fleet.publishing.publish import EXPIRY_DAYS
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.keys import create_ed25519, read_ed25519, write_public

ONLINE_ROLES: Final = ("targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True)
class Ceremony:
    """Holds the present root and the unsigned next root."""

    present: Metadata[Root]
    following: Metadata[Root]

    def to_json(self) -> bytes:
        """Return the content of the ceremony's file."""
        return json.dumps({"present": self.present.to_dict(), "next": self.following.to_dict()}, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, source: str) -> "Ceremony":
        """Read the content of the ceremony's file.  Raises: Permanent naming `source` if it is damaged."""
        try:
            document = json.loads(content)
            present, following = (Metadata[Root].from_dict(document[name]) for name in ("present", "next"))
        except (ValueError, KeyError, TypeError, AttributeError, RepositoryError) as error:
            raise Permanent(f"{source}: this is not a ceremony of `fleet keys root start` ({error}).") from error
        return cls(present, following)

    @property
    def payload(self) -> bytes:
        """Return the bytes that the root keys sign."""
        return CanonicalJSONSerializer().serialize(self.following.signed)

    def changes(self) -> list[str]:
        """Describe for people what the next root changes.  The text is made from the two roots alone."""
        before, after = self.present.signed, self.following.signed
        found = [f"root {before.version} becomes root {after.version}, valid until {after.expires:%Y-%m-%d}"]
        for role in (Root.type, *ONLINE_ROLES):
            old, new = before.roles[role], after.roles[role]
            found += [f"{role}: key {key_id[:16]} is removed" for key_id in old.keyids if key_id not in new.keyids]
            found += [f"{role}: key {key_id[:16]} is added" for key_id in new.keyids if key_id not in old.keyids]
            if old.threshold != new.threshold:
                found.append(f"{role}: {new.threshold} signatures instead of {old.threshold}")
        return found


def start(
    fleet: FleetFolder, *, replace: Sequence[str] = (), root_keys: Mapping[str, Path] | None = None, now: datetime
) -> Ceremony:
    """Return the ceremony of the next root.

    `replace` names online roles that get a new key, which is made here.  `root_keys` maps root1, root2 or root3 to the
    file of the public key that takes its place.  Without both, the next root only lives longer.

    Raises: Permanent if a name or a file is wrong.
    """
    present = repository.read_root(fleet.require().metadata)
    root = deepcopy(present.signed)
    root.version += 1
    root.expires = now + timedelta(days=repository.ROOT_DAYS)
    for name, file in (root_keys or {}).items():
        if name not in ROOT_KEYS:
            raise Permanent(f"There is no root key {name!r}. Choose one of {', '.join(ROOT_KEYS)}.")
        _exchange(root, Root.type, present.signed.roles[Root.type].keyids[ROOT_KEYS.index(name)], read_public(file))
    for role in replace:
        if role not in ONLINE_ROLES:
            raise Permanent(f"There is no online role {role!r}. Choose one of {', '.join(ONLINE_ROLES)}.")
        following = _next_key(fleet, role)
        key = read_ed25519(following) if following.exists() else create_ed25519(following)
        _exchange(root, role, present.signed.roles[role].keyids[0], CryptoSigner(key).public_key)
    return Ceremony(present, Metadata(root))


def sign(ceremony: Ceremony, key_file: Path) -> Signature:
    """Return the signature of a root key.  This needs nothing but the ceremony and the key.

    Raises: Permanent if the key is neither a root key of the present root nor of the next one.
    """
    signer = CryptoSigner(read_ed25519(key_file))
    known = {
        key_id for root in (ceremony.present, ceremony.following) for key_id in root.signed.roles[Root.type].keyids
    }
    if signer.public_key.keyid not in known:
        raise Permanent(
            f"{key_file} is not a root key of this fleet: its id {signer.public_key.keyid[:16]} is unknown."
        )
    return signer.sign(ceremony.payload)


def import_signatures(
    fleet: FleetFolder, ceremony: Ceremony, signatures: Sequence[Signature], *, now: datetime
) -> Versions:
    """Publish the signed root, put new online keys into use, and sign targets, snapshot and timestamp with them.

    Raises: Permanent if signatures are missing or wrong, or if the ceremony does not follow the published root;
    Transient if a publisher is at work.
    """
    root = ceremony.following
    root.signatures.clear()
    root.signatures |= {signature.keyid: signature for signature in signatures}
    with repository.locked(fleet):
        newest = repository.newest_root(fleet.metadata)
        # An import that was interrupted has published the root already.
        resumed = newest == root.signed.version
        if not resumed and newest != root.signed.version - 1:
            raise Permanent(
                f"The ceremony is for root {root.signed.version}, but root {newest} is published. Start a new ceremony."
            )
        present = repository.read_root(fleet.metadata, root.signed.version - 1)
        _check_signatures(present.signed, root, ceremony.payload)
        if resumed and repository.read_root(fleet.metadata, newest).signed != root.signed:
            raise Permanent(f"Another root {newest} is published already. Start a new ceremony.")
        new_keys = _new_keys(fleet, root.signed)
        write_file(fleet.metadata / f"{root.signed.version}.root.json", root.to_bytes(), mode=0o644)
        for role in new_keys:
            write_file(fleet.key(role), _next_key(fleet, role).read_bytes())
            remove(_next_key(fleet, role))
        state = repository.read_state(fleet.metadata)
        # With a new key of targets, all bins are signed again.
        bins = renewed_bins(fleet, state, now=now, expiry_days=EXPIRY_DAYS)
        return repository.write_version(
            fleet, state.versions, state.targets.targets, {}, bins=bins, now=now, expiry_days=EXPIRY_DAYS
        )


def make_root_key(file: Path) -> Path:
    """Make a new root key in `file`, write its public half beside it, and return the public file.

    Raises: Permanent if the file exists.
    """
    if file.exists():
        raise Permanent(f"{file} exists. Choose another --out, because a key must not be overwritten.")
    public = file.with_name(f"{file.stem}.pub.pem")
    key = create_ed25519(file)
    write_public(public, key.public_key())
    return public


def read_public(file: Path) -> Key:
    """Read the public key of a root key.  Raises: Permanent if the file is missing or holds something else."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(file.read_bytes()))
    except OSError as error:
        raise Permanent(f"{file} cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise Permanent(f"{file} is not a public key in PEM. Make one with `fleet keys root key`.") from error


def read_signature(content: bytes, source: str) -> Signature:
    """Read a signature that `sign` made.  Raises: Permanent naming `source` if it is damaged."""
    try:
        return Signature.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Permanent(f"{source}: this is not a signature of `fleet keys root sign` ({error}).") from error


def _exchange(root: Root, role: str, old_id: str, key: Any) -> None:
    """Put `key` in the place of the key `old_id`.  The place matters: it is what people call root1, root2 and root3."""
    ids = root.roles[role].keyids
    place = ids.index(old_id)
    root.add_key(key, role)
    ids.remove(key.keyid)
    ids[place] = key.keyid
    if not any(old_id in other.keyids for other in root.roles.values()):
        del root.keys[old_id]


def _check_signatures(present: Root, root: Metadata[Root], payload: bytes) -> None:
    result = root.signed.get_root_verification_result(present, payload, root.signatures)
    if not result.verified:
        missing = max(present.roles[Root.type].threshold - len(result.first.signed), 0)
        missing_next = max(root.signed.roles[Root.type].threshold - len(result.second.signed), 0)
        raise Permanent(
            f"The new root lacks {missing} signatures by keys of the present root and {missing_next} by keys of the "
            "new root. Sign it with further root keys (fleet keys root sign), and import all signatures together."
        )


def _new_keys(fleet: FleetFolder, root: Root) -> list[str]:
    """Return the roles whose next key is named by `root`.

    Raises: Permanent if `root` names a key for a role that is neither in use here nor the next one.
    """
    found = []
    for role in ONLINE_ROLES:
        wanted = root.roles[role].keyids
        for path in (fleet.key(role), _next_key(fleet, role)):
            if path.exists() and CryptoSigner(read_ed25519(path)).public_key.keyid in wanted:
                if path != fleet.key(role):
                    found.append(role)
                break
        else:
            raise Permanent(
                f"The new root names a key for {role} that is neither {fleet.key(role)} nor {_next_key(fleet, role)}. "
                "Run the import where the ceremony was started."
            )
    return found


def _next_key(fleet: FleetFolder, role: str) -> Path:
    return fleet.key(f"{role}.next")
