"""Rotate the sealing key: make a new one, and publish its public half to the vehicles as `recipient.json`."""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.formats.down.documents import RECIPIENT
from agent.formats.up.recipient import SuiteName
from fleet.admin.announced import is_announced
from fleet.publishing.places import refuse_staged
from fleet.publishing.publish import Publication, Published, publish
from fleet.rollout.book import documents_in_rollout
from fleet.state.folder import FleetFolder
from fleet.state.key_lock import key_lock
from fleet.state.keys import read_recipient
from fleet.state.sealing_keys import add_sealing_key, was_rotated


@dataclass(frozen=True, slots=True)
class Rotated:
    """Holds the ids of the sealing keys before and after a rotation, and the publication that announces the new key.

    `resumed` says that the new key came from an earlier rotation, which was interrupted before it published the key.
    """

    before: str
    key_id: str
    published: Published
    resumed: bool


def rotate_sealing(fleet: FleetFolder, *, suite: SuiteName | None, now: datetime) -> Rotated:
    """Make a new sealing key and publish it; `suite` None keeps the suite of the key in use.

    The new key is on the disk before any vehicle learns of it, so no batch ever arrives that the fleet cannot open.
    After an interruption, call the function again: it publishes the key that was made before.

    Raises: Permanent if the key in use or the repository is damaged, or if a roll-out publishes a sealing key;
    Transient if another publisher is at work.
    """
    with key_lock(fleet):
        return _rotate(fleet, suite, now)


def _rotate(fleet: FleetFolder, suite: SuiteName | None, now: datetime) -> Rotated:
    refuse_staged([RECIPIENT.pattern], documents_in_rollout(fleet))
    before = read_recipient(fleet)
    resumed = was_rotated(fleet) and not is_announced(fleet, RECIPIENT.pattern, before.public.to_json())
    key = before if resumed else add_sealing_key(fleet, suite or before.suite)
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / RECIPIENT.pattern
        document.write_bytes(key.public.to_json())
        published = publish(fleet, Publication(files=[(RECIPIENT.name, document)]), now=now)
    return Rotated(before.key_id, key.key_id, published, resumed)
