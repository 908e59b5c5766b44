"""Cases of the suite's test_keys.py: thresholds, repeated keys and signatures, and the types of keys."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from tests.conformance.case import Case, Intent, World
from tests.conformance.repository import ALL, ONLINE, ROOT, SNAPSHOT, TIME, file_name


def with_field(name: str, value: object) -> CryptoSigner:
    """Return a signer whose public key has a further field, which the specification does not know."""
    signer = CryptoSigner.generate_ed25519()
    key = signer.public_key
    public = key.to_dict() | {name: value}
    keyid = hashlib.sha256(str(encode_canonical(public)).encode()).hexdigest()
    more = {**key.unrecognized_fields, name: value}
    return CryptoSigner(signer._private_key, SSlibKey(keyid, key.keytype, key.scheme, key.keyval, more))


def too_few_signatures(world: World) -> None:
    repository = world.repository
    repository.root.roles[SNAPSHOT].threshold = 3
    repository.add_key(SNAPSHOT)
    repository.add_key(SNAPSHOT)
    repository.publish(*ALL)
    world.init()
    world.expect_accepted()
    repository.signers[SNAPSHOT].pop()
    repository.publish(*ONLINE)
    world.expect_refused()
    assert world.client.trusted()[SNAPSHOT] == 2


def fewer_keys_than_the_threshold(world: World) -> None:
    repository = world.repository
    world.init()
    for _ in range(4):
        repository.add_key(SNAPSHOT)
    repository.root.roles[SNAPSHOT].threshold = 6
    repository.publish(ROOT, SNAPSHOT, TIME)
    world.expect_refused()
    world.expect_trusted(root=2)


def repeat_signature(world: World, times: int, which: int) -> None:
    """Serve the snapshot with one of its signatures repeated."""
    name = file_name(SNAPSHOT, world.repository.snapshot.version)
    content = json.loads(world.repository.files[name])
    content["signatures"] += [content["signatures"][which]] * times
    world.repository.files[name] = json.dumps(content).encode()


def one_key_signs_many_times(world: World) -> None:
    """The threshold is 6, and two keys have signed, one of them nine times."""
    repository = world.repository
    world.init()
    repository.add_key(SNAPSHOT)
    repository.root.roles[SNAPSHOT].threshold = 6
    repository.publish(ROOT, SNAPSHOT, TIME)
    repeat_signature(world, 8, -1)
    world.expect_refused()
    assert SNAPSHOT not in world.client.trusted()


def one_signature_twice(world: World) -> None:
    world.init()
    repeat_signature(world, 1, 0)
    world.expect_refused()
    assert SNAPSHOT not in world.client.trusted()


def signature_of(type_: str, world: World) -> None:
    """A root needs a key of another type; then the signature of this key is one of other bytes."""
    repository = world.repository
    world.init()
    signer = TYPES[type_]()
    repository.add_key(ROOT, signer)
    repository.root.roles[ROOT].threshold = 2
    repository.publish(ROOT)
    world.expect_accepted()
    world.expect_trusted(root=2, timestamp=1, snapshot=1, targets=1)
    repository.publish(ROOT)
    metadata: Metadata[Any] = Metadata.from_bytes(repository.files[file_name(ROOT, 3)])
    metadata.signatures[signer.public_key.keyid] = signer.sign(b"other bytes")
    repository.files[file_name(ROOT, 3)] = metadata.to_bytes()
    world.expect_refused()
    world.expect_trusted(root=2, timestamp=1, snapshot=1, targets=1)


def enough_signatures_and_a_wrong_one(world: World) -> None:
    repository = world.repository
    (first,) = repository.signers[TIME]
    world.init()
    repository.add_key(TIME)
    repository.publish(ROOT)
    for wrong in (first.sign(b"other bytes").signature, ""):
        repository.publish(TIME)
        metadata: Metadata[Any] = Metadata.from_bytes(repository.files[file_name(TIME, 0)])
        metadata.signatures[first.public_key.keyid].signature = wrong
        repository.files[file_name(TIME, 0)] = metadata.to_bytes()
        world.expect_accepted()
    world.expect_trusted(root=2, timestamp=3, snapshot=1, targets=1)


TYPES = {
    "rsa/rsassa-pss-sha256": CryptoSigner.generate_rsa,
    "ecdsa/ecdsa-sha2-nistp256": CryptoSigner.generate_ecdsa,
    "ed25519/ed25519": CryptoSigner.generate_ed25519,
}


def cases() -> Iterator[Case]:
    yield Case("test_keys.py::test_snapshot_does_not_meet_threshold", too_few_signatures)
    name = "test_keys.py::test_snapshot_has_too_few_keys"
    yield Case(name, fewer_keys_than_the_threshold, Intent.ALL_OR_NOTHING)
    yield Case("test_keys.py::test_duplicate_keys", one_key_signs_many_times)
    yield Case("test_keys.py::test_duplicate_sig_keyids", one_signature_twice)
    for type_ in TYPES:
        yield Case(f"test_keys.py::test_keytype_and_scheme[{type_}]", partial(signature_of, type_))
    yield Case("test_keys.py::test_invalid_sig_in_valid_metadata", enough_signatures_and_a_wrong_one)
