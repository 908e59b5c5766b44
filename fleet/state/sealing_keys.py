"""Finds the private keys that open telemetry: the sealing key in use, and every earlier one.

    keys/hpke.json            the key in use: new vehicles get it, and `recipient.json` names it
    keys/hpke-<key id>.json   every key after the first rotation, the one in use included

Invariant: a key is never deleted by a command.  A vehicle may have sealed batches to an old key years ago, and these
batches wait in its spool until the vehicle comes back.

A running receiver needs no restart after a rotation.  The key that a batch names is read from its file when the first
such batch arrives, and a rotation writes the file before any vehicle learns of the key.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.errors import Permanent, Untrusted
from agent.formats.up.recipient import RecipientPrivateKey, SuiteName
from agent.system.durable import write_file
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient, read_sealing_key

_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")


class SealingKeys:
    """Finds the private key that a batch names.  Each key is read from its file once."""

    def __init__(self, fleet: FleetFolder) -> None:
        """Read the key in use.  Raises: Permanent if its file is missing or damaged."""
        self._fleet = fleet
        current = read_recipient(fleet)
        self._keys = {current.key_id: current}

    def find(self, key_id: str) -> RecipientPrivateKey:
        """Return the private key with this id.

        Raises: Untrusted if the fleet has no such key, or if its file is damaged.
        """
        found = self._keys.get(key_id)
        if found is None:
            found = self._keys[key_id] = self._read(key_id)
        return found

    def _read(self, key_id: str) -> RecipientPrivateKey:
        # The id comes from the network.  It must not become a path such as `../ca.key`.
        path = self._fleet.sealing_key(key_id) if _KEY_ID.fullmatch(key_id) else None
        if path is None or not path.exists():
            raise Untrusted(
                f"The batch is sealed to key {key_id[:40]}, and this fleet has no such sealing key: restore "
                f"keys/hpke-{key_id[:40]}.json from the backup, or enrol the vehicle again."
            )
        try:
            return read_sealing_key(path)
        except Permanent as error:
            # Permanent would end the receiver, although batches that are sealed to other keys can be opened.
            raise Untrusted(f"The sealing key of the batch cannot be read. {error}") from error


def add_sealing_key(fleet: FleetFolder, suite: SuiteName) -> RecipientPrivateKey:
    """Make a new sealing key, put it into use, and keep the one before.

    A power cut at any moment leaves a key in use, and loses no key that a vehicle may know.

    Raises: Permanent if the key in use is missing or damaged.
    """
    before, key = read_recipient(fleet), RecipientPrivateKey.generate(suite)
    for each in (before, key):
        write_file(fleet.sealing_key(each.key_id), each.to_json())
    write_file(fleet.hpke_private, key.to_json())
    return key


def was_rotated(fleet: FleetFolder) -> bool:
    """Return whether the key in use came from a rotation, and not from `fleet init`."""
    return fleet.sealing_key(read_recipient(fleet).key_id).exists()


def retired_files(fleet: FleetFolder) -> list[Path]:
    """Return the files of the sealing keys that are not in use any more, oldest first."""
    in_use = fleet.sealing_key(read_recipient(fleet).key_id)
    found = [path for path in fleet.keys.glob("hpke-*.json") if path != in_use]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def made_at(path: Path) -> datetime:
    """Return the time at which the file of a key was written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
