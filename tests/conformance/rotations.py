"""Cases of the suite's test_updater_key_rotations.py: which signatures let new keys take over.

A step is written `keys/threshold/signatures`: "013/2/04" is a role whose keys are 0, 1 and 3, whose threshold is 2, and
whose file is signed by the keys 0 and 4.  A list of steps is a list of versions of the root.  If the name of a case has
the word "fail", the last step must be refused.
"""

from collections.abc import Iterator
from functools import partial

from securesystemslib.signer import CryptoSigner

from tests.conformance.case import Case, World
from tests.conformance.repository import ONLINE, ROOT, Repository, file_name

ROOTS = {
    "1-of-1-key-rotation": "1/1/1 2/1/21 2/1/2",
    "1-of-1-key-rotation-unused-signatures": "1/1/314 2/1/3214 2/1/324",
    "3-of-5-sign-with-different-keycombos": "01234/3/024 01234/3/041 01234/3/013 01234/3/013",
    "3-of-5-one-key-rotated": "01234/3/024 01345/3/041",
    "3-of-5-one-key-rotated-with-intermediate-step": "01234/3/024 01345/3/0245 01345/3/045",
    "3-of-5-all-keys-rotated-with-intermediate-step": "01234/3/024 56789/3/024567 56789/3/567",
    "1-of-3-threshold-increase-to-2-of-3": "123/1/1 123/2/12",
    "2-of-3-threshold-decrease-to-1-of-3": "123/2/12 123/1/12 123/1/1",
    "1-of-2-threshold-increase-to-2-of-2": "1/1/1 12/2/12",
    "1-of-1-key-rotation-fail-not-signed-with-old-key": "1/1/1 2/1/234",
    "1-of-1-key-rotation-fail-not-signed-with-new-key": "1/1/1 2/1/134",
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": "01234/3/024 01345/3/024",
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": "01234/3/024 01345/3/045",
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": "123/1/1 123/2/2",
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached": "123/2/12 123/1/1",
}
OTHERS = {
    "1-of-1-key-rotation": ("2/1/2", True),
    "1-of-1-key-rotation-unused-signatures": ("1/1/314", True),
    "1-of-1-key-rotation-fail-not-signed-with-new-key": ("2/1/134", False),
    "3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": ("01345/3/024", False),
    "2-of-5-one-key-signature-mising-threshold-not-reached": ("01345/3/04", False),
    "3-of-5-sign-first-combo": ("01234/3/024", True),
    "3-of-5-sign-second-combo": ("01234/3/041", True),
    "3-of-5-sign-third-combo": ("01234/3/013", True),
    "3-of-5-sign-fourth-combo": ("01234/3/123", True),
    "3-of-5-sign-fifth-combo": ("01234/3/234", True),
}


def set_keys(repository: Repository, role: str, step: str, signers: list[CryptoSigner]) -> None:
    keys, threshold, signatures = step.split("/")
    repository.replace_keys(role, *(signers[int(key)] for key in keys))
    repository.root.roles[role].threshold = int(threshold)
    repository.signers[role] = [signers[int(key)] for key in signatures]


def rotate_root(steps: str, good: bool, world: World) -> None:
    repository = world.repository
    signers = [CryptoSigner.generate_ed25519() for _ in range(10)]
    versions = steps.split()
    for version, step in enumerate(versions, 1):
        set_keys(repository, ROOT, step, signers)
        repository.publish(ROOT, version=version)
    world.init()
    if good:
        world.expect_accepted()
    else:
        world.expect_refused()
    trusted = len(versions) if good else len(versions) - 1
    world.expect_kept(ROOT, repository.files[file_name(ROOT, trusted)])


def rotate_others(step: str, good: bool, world: World) -> None:
    repository = world.repository
    signers = [CryptoSigner.generate_ed25519() for _ in range(10)]
    world.init()
    for role in reversed(ONLINE):
        before = repository.signers[role]
        set_keys(repository, role, step, signers)
        repository.publish(ROOT, *ONLINE)
        if good:
            world.expect_accepted()
            world.expect_kept(role, repository.files[file_name(role, repository.signed[role].version)])
            continue
        world.expect_refused()
        # The next role is tried alone, so this one is put right again.
        repository.replace_keys(role, *before)
        repository.root.roles[role].threshold = 1


def cases() -> Iterator[Case]:
    for name, steps in ROOTS.items():
        play = partial(rotate_root, steps, "fail" not in name)
        yield Case(f"test_updater_key_rotations.py::test_root_rotation[{name}]", play)
    for name, (step, good) in OTHERS.items():
        play = partial(rotate_others, step, good)
        yield Case(f"test_updater_key_rotations.py::test_non_root_rotations[{name}]", play)
