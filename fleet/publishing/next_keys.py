"""Keeps the keys that ceremonies have made for online roles, until a published root names them.

    keys/<role>.next-<key id>.pem

Each ceremony makes keys of its own, because a thief may have copied those of an earlier one.
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Root

from agent.errors import Permanent
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, write_private

ONLINE_ROLES: Final = ("targets", "snapshot", "timestamp")


def make_next_key(fleet: FleetFolder, role: str) -> Key:
    """Make a key that a ceremony can give to `role`, store it durably, and return its public half."""
    key = Ed25519PrivateKey.generate()
    public: Key = CryptoSigner(key).public_key
    write_private(fleet.key(f"{role}.next-{public.keyid[:16]}"), key)
    return public


def new_keys_of(fleet: FleetFolder, root: Root) -> dict[str, Path]:
    """Return the files of the new keys that `root` names, by role.

    Raises: Permanent if `root` names a key for a role that is neither in use here nor one of its new keys.
    """
    found = {}
    for role in ONLINE_ROLES:
        wanted = root.roles[role].keyids
        for path in (fleet.key(role), *next_keys(fleet, role)):
            if path.exists() and CryptoSigner(read_ed25519(path)).public_key.keyid in wanted:
                if path != fleet.key(role):
                    found[role] = path
                break
        else:
            raise Permanent(
                f"The new root names the key {wanted[0][:16]} for {role}, and {fleet.keys} does not have it. "
                "Run the import where the ceremony was started."
            )
    return found


def next_keys(fleet: FleetFolder, role: str) -> list[Path]:
    """Return the files of the keys that ceremonies made for `role` and no root that is published names yet."""
    return sorted(fleet.keys.glob(f"{role}.next-*.pem"))
