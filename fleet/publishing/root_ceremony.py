"""Sign a new root with keys that are never online: export what to sign, sign offline, import the signatures.

    start    on the publisher    writes the ceremony: the present root and the unsigned next one
    sign     on an offline PC    reads the ceremony and one root key, and writes one signature
    import   on the publisher    checks the signatures, publishes the root, and signs with its online keys

The next root can replace keys that were lost or stolen, and it is valid for fifteen years again.  It must be
signed by two root keys of the present root and by two of the next one.  Usually the same two keys do both.

Invariants: only `sign` needs a private root key.  A new key of an online role waits in a file of its own until
the root that names it is published (`next_keys`).  An interrupted import is completed by running it again.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Key, Signature
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import CanonicalJSONSerializer

from agent.errors import Permanent
from agent.formats.down.bundle import Versions
from agent.system.durable import remove, write_file
from agent.system.words import counted
from fleet.publishing import repository
from fleet.publishing.bins import renewed_bins
from fleet.publishing.next_keys import ONLINE_ROLES, make_next_key, new_keys_of, next_keys
from fleet.publishing.publish import EXPIRY_DAYS
from fleet.publishing.root_keys import read_public
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.keys import read_ed25519

if TYPE_CHECKING:
    from fleet.state.token_key import TokenKey


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
                found.append(f"{role}: {counted(new.threshold, 'signature')} instead of {old.threshold}")
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
        new = read_public(file)
        _refuse_known(present.signed, root, new, file)
        _exchange(root, Root.type, present.signed.roles[Root.type].keyids[ROOT_KEYS.index(name)], new)
    for role in replace:
        if role not in ONLINE_ROLES:
            raise Permanent(f"There is no online role {role!r}. Choose one of {', '.join(ONLINE_ROLES)}.")
        new = make_next_key(fleet, role)
        _exchange(root, role, present.signed.roles[role].keyids[0], new)
    return Ceremony(present, Metadata(root))


def sign(ceremony: Ceremony, key_file: Path) -> Signature:
    """Return the signature of a root key.  This needs nothing but the ceremony and the key.

    Raises: Permanent if the key is neither a root key of the present root nor of the next one.
    """
    signer = CryptoSigner(read_ed25519(key_file))
    if signer.public_key.keyid not in _root_keys(ceremony):
        raise Permanent(
            f"{key_file} is not a root key of this fleet: its id {signer.public_key.keyid[:16]} is unknown."
        )
    return signer.sign(ceremony.payload)


def sign_with_token(ceremony: Ceremony, key: "TokenKey", name: str) -> Signature:
    """Return the signature of a root key that lies in a token.  `name` is what errors call the key.

    Raises: Permanent if the key is neither a root key of the present root nor of the next one, or if the token refuses.
    """
    signature = key.sign(ceremony.payload).hex()
    # The public half is found by verifying, because many tokens hold private keys only.
    for key_id, each in _root_keys(ceremony).items():
        signed = Signature(key_id, signature)
        with suppress(UnverifiedSignatureError):
            each.verify_signature(signed, ceremony.payload)
            return signed
    raise Permanent(f"{name} is not a root key of this fleet: no root key of the ceremony verifies its signature.")


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
        new_keys = new_keys_of(fleet, root.signed)
        write_file(fleet.metadata / f"{root.signed.version}.root.json", root.to_bytes(), mode=0o644)
        for role, file in new_keys.items():
            write_file(fleet.key(role), file.read_bytes())
        state = repository.read_state(fleet.metadata)
        # With a new key of targets, all bins are signed again.
        bins = renewed_bins(fleet, state, now=now, expiry_days=EXPIRY_DAYS)
        versions = repository.write_version(
            fleet, state.versions, state.targets.targets, {}, bins=bins, now=now, expiry_days=EXPIRY_DAYS
        )
        # Ceremonies that were never imported can no longer be: the root that they follow is not the newest any more.
        for role in ONLINE_ROLES:
            for file in next_keys(fleet, role):
                remove(file)
        return versions


def read_signature(content: bytes, source: str) -> Signature:
    """Read a signature that `sign` made.  Raises: Permanent naming `source` if it is damaged."""
    try:
        return Signature.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Permanent(f"{source}: this is not a signature of `fleet keys root sign` ({error}).") from error


def _root_keys(ceremony: Ceremony) -> dict[str, Key]:
    """Return the root keys of the present and of the next root, by their ids."""
    return {
        key_id: root.signed.keys[key_id]
        for root in (ceremony.present, ceremony.following)
        for key_id in root.signed.roles[Root.type].keyids
    }


def _refuse_known(present: Root, following: Root, key: Key, file: Path) -> None:
    """Raise Permanent if `key` has a place already: one key in two places would count as one signature only."""
    for root in (present, following):
        for role, held in root.roles.items():
            if key.keyid in held.keyids:
                place = ROOT_KEYS[held.keyids.index(key.keyid)] if role == Root.type else role
                raise Permanent(
                    f"{file} is the key of {place} already. Check the file, or make a new key with `fleet keys root "
                    "key`."
                )


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
    keys = {key_id: each.keys[key_id] for each in (present, root.signed) for key_id in each.roles[Root.type].keyids}
    for key_id in keys.keys() & root.signatures.keys():
        try:
            keys[key_id].verify_signature(root.signatures[key_id], payload)
        except UnverifiedSignatureError as error:
            raise Permanent(
                f"The signature by root key {key_id[:16]} is for another ceremony, or is damaged. Sign this ceremony "
                "with that key, and import the new signature."
            ) from error
    result = root.signed.get_root_verification_result(present, payload, root.signatures)
    if not result.verified:
        missing = max(present.roles[Root.type].threshold - len(result.first.signed), 0)
        missing_next = max(root.signed.roles[Root.type].threshold - len(result.second.signed), 0)
        raise Permanent(
            f"The new root lacks {counted(missing, 'signature')} by keys of the present root and {missing_next} by "
            "keys of the new root. Sign it with further root keys (fleet keys root sign), and import all signatures "
            "together."
        )
