"""Compares the inbox with the lake when a receiver starts, because either may have been put back to an earlier state.

First the receiver claims its partitions in the lake.  From then on no other inbox can write to them, so nothing changes
while the two are compared.  Both note the generation of the last claim, the number of the last commit, and the ids of
the lake's tables.  There are four outcomes:

    the same      The receiver goes on.
    inbox older   The inbox was put back, or a copy of it has written to the lake.  The inbox learns from the lake.
    lake older    The lake was put back.  The inbox learns from the lake: it forgets what the lake lacks, and logs how
                  many batches that are.  Vehicles send again what they still have.
    another lake  The lake, or a table of it, was deleted, or --lake is wrong.  The receiver refuses to start until the
                  operator accepts the lake.  Then the lake counts as older.

One table may be older than the others.  A batch whose rows are missing from one table counts as missing, even if the
table `batches` has it.  When it comes again, only the missing rows are appended.  Rows that `fleet compact --keep-days`
has deleted are not missing (fleet.lake.retention).

Batches of unfinished commits stay in the inbox, unless the lake has them.  They reach the lake under a new app id.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Final

import structlog

from agent.errors import Permanent
from fleet.lake.batch_key import BatchKey
from fleet.lake.location import Location
from fleet.lake.opening import missing_tables
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import Lake
from fleet.receiving.inbox import Inbox
from fleet.receiving.share import Share

NAMED: Final = 20
"""The limit of vehicles that one line of the log names."""

_log = structlog.get_logger()


def open_lake(location: Location, inbox: Inbox, *, accept: bool) -> Lake:
    """Open the lake, or create it if the inbox has not seen a lake yet.

    With `accept`, a lake that is not the one of the inbox is opened or created, too.

    Raises: Permanent if the lake is not the one of the inbox, or cannot be opened; Transient if the disk refuses.
    """
    ids = inbox.record.lakes()
    # A wrong --lake must not leave an empty lake behind.
    if ids and not accept and (missing := missing_tables(location)):
        raise _other_lake(location, inbox, missing)
    lake = Lake(location)
    if ids and not accept and (changed := [name for name, id_ in lake.ids().items() if ids.get(name) != id_]):
        raise _other_lake(location, inbox, changed)
    return lake


def reconcile(inbox: Inbox, lake: Lake) -> int:
    """Claim the partitions of the inbox's share, and make the inbox know what the lake has.

    Return the number of batches that the inbox knew as stored, and that the lake does not have.

    Raises: Transient if the lake or the disk refuses.  Then call it again.
    """
    share = Share.of_name(inbox.share)
    record = inbox.record
    # The transaction keeps other receivers of this file from reading claims that the file does not have yet.
    with inbox.transaction():
        ids, known_ids = lake.ids(), record.lakes()
        own = record.claims(share)
        claims, before = lake.claim(share.partitions, own)
        record.set_claims(claims)
        record.set_lakes(ids)
        landed, known_landed = lake.landed(inbox.app_id), record.landed(inbox.share)
        older = [
            name
            for name in ids
            if known_ids.get(name, ids[name]) != ids[name]
            or any(before[name][partition] < generation for partition, generation in own.items())
            or landed[name] < known_landed.get(name, 0)
        ]
        newer = any(
            before[name][partition] > own.get(partition, 0) for name in ids for partition in share.partitions
        ) or any(number > inbox.last_number for number in landed.values())
        if known_ids and not older and not newer:
            return 0
        missing = _learn(inbox, lake, share, older)
    if older:
        _log.error(
            "lake_is_older",
            tables=older,
            missing=missing.total(),
            vehicles=dict(missing.most_common(NAMED)),
            reason="The lake was put back to an earlier state, or was made anew. The receiver has forgotten the "
            "missing batches, which it had acknowledged. Vehicles send again only what they still have. If there is a "
            "newer backup of the lake, stop the receiver and put it back now.",
        )
    elif known_ids:
        _log.warning(
            "inbox_is_older",
            missing=missing.total(),
            vehicles=dict(missing.most_common(NAMED)),
            # If the disk of the inbox refuses right after the claim, or a crash comes then, the lake has a claim that
            # the inbox does not know.  The claim of another receiver looks the same.
            reason="The inbox was put back to an earlier state, another receiver has served its partitions with this "
            "lake, or an earlier start ended before the inbox could note its claim. The inbox has learned from the "
            "lake. Make sure that only one receiver serves a share.",
        )
    return missing.total()


def _learn(inbox: Inbox, lake: Lake, share: Share, older: Collection[str]) -> "Counter[str]":
    """Replace what the inbox knows about the vehicles of `share` with what the lake has.

    `older` names the tables that were put back.  Return for each vehicle how many of its known batches the lake lacks.
    """
    half_landed = lake.half_landed()
    lacking = _without_rows(inbox, lake, older)
    incomplete = {key for keys in lacking.values() for key in keys}
    for name in SCHEMAS:
        complete = incomplete - lacking.get(name, set())
        half_landed[name] = half_landed.get(name, set()) | {key.digest for key in complete}
    in_lake = [key for key in lake.known() if share.has(key.vehicle) and key not in incomplete]
    inbox.pending.drop(in_lake)
    pending = [key for key in inbox.pending.keys() if share.has(key.vehicle)]  # noqa: SIM118 (not a dict)
    numbers = [each for each in inbox.known.numbers() if share.has(each[0])]
    inbox.known.forget_vehicles({vehicle for vehicle, *_ in numbers})
    inbox.known.learn([*in_lake, *pending])
    inbox.record.forget_half_landed()
    for name, digests in half_landed.items():
        inbox.record.add_half_landed(name, digests)
    # Commit numbers that a copy of this inbox has used must not count as those of this inbox.
    inbox.rename()
    return _lacking(numbers, [*in_lake, *pending])


def _without_rows(inbox: Inbox, lake: Lake, older: Collection[str]) -> dict[str, set[BatchKey]]:
    """Return, for the tables of rows, the batches whose rows were lost when the table was put back.

    A batch that lost its rows earlier, and did not come again since, still counts.
    """
    earlier = inbox.record.half_landed("batches")
    found: dict[str, set[BatchKey]] = {}
    for name in SCHEMAS:
        if name != "batches" and (name in older or earlier):
            keys = lake.lacking(name)
            found[name] = keys if name in older else {key for key in keys if key.digest in earlier}
    return found


def _lacking(numbers: Iterable[tuple[str, str, int, int]], keys: Iterable[BatchKey]) -> "Counter[str]":
    """Return for each vehicle how many of its `numbers`, which are intervals, no key has.

    Vehicles of which every number has a key are left out.
    """
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for key in keys:
        found[key.vehicle, key.epoch].add(key.seq)
    ordered = {epoch: sorted(seqs) for epoch, seqs in found.items()}
    lacking: Counter[str] = Counter()
    for vehicle, epoch, first, last in numbers:
        seqs = ordered.get((vehicle, epoch), [])
        lacking[vehicle] += last - first + 1 - (bisect_right(seqs, last) - bisect_left(seqs, first))
    return +lacking


def _other_lake(location: Location, inbox: Inbox, tables: Collection[str]) -> Permanent:
    share = Share.of_name(inbox.share)
    numbers = [each for each in inbox.known.numbers() if share.has(each[0])]
    batches = sum(last - first + 1 for _, _, first, last in numbers)
    return Permanent(
        f"The lake {location.uri} is not the one that the inbox knows: the tables {', '.join(tables)} are missing or "
        f"were made anew. The inbox knows {batches} batches of {len({each[0] for each in numbers})} vehicles as "
        "stored. Check --lake, or put back a backup of the lake. If the lake is lost, start the receiver once with "
        "--accept-lake: it forgets these batches, and vehicles send again what they still have. Batches that "
        "vehicles have deleted since are lost."
    )
