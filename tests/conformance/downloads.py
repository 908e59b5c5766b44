"""Cases of the suite's test_file_download.py and test_static_repositories.py: targets, honest and exchanged.

The suite's targets are text files with free names.  A vehicle takes documents only, so each target is a campaign here.
"""

from collections.abc import Iterator
from functools import partial

from tuf.api.metadata import TargetFile

from agent.formats.down.bundle import have
from tests.agent.pushes.world import campaign
from tests.conformance.case import Case, Intent, World
from tests.conformance.repository import ONLINE

FIRST, SECOND = "campaigns/first.json", "campaigns/second.json"
HONEST, OTHER, BAD = campaign("first"), campaign("second"), campaign("bad")


def takes_a_target(world: World) -> None:
    world.init()
    world.repository.add_target(FIRST, HONEST)
    world.repository.publish(*ONLINE)
    world.expect_accepted()
    world.expect_documents({FIRST: HONEST})


def targets_are_exchanged(world: World) -> None:
    repository = world.repository
    world.init()
    repository.add_target(FIRST, HONEST)
    repository.add_target(SECOND, OTHER)
    repository.publish(*ONLINE)
    world.expect_accepted()
    world.expect_documents({FIRST: HONEST}, others=True)
    for target in repository.targets.targets.values():
        repository.serve_target(target, BAD)
    world.refresh()
    world.expect_documents({FIRST: HONEST, SECOND: OTHER})
    # The suite's client does not have the second target yet and must fail to download it.
    world.expect_requests("the second target")


def a_target_changes_many_times(world: World) -> None:
    repository = world.repository
    world.init()
    repository.add_target(FIRST, HONEST)
    repository.publish(*ONLINE)
    world.expect_accepted()
    wanted = {FIRST: HONEST}
    for number in range(11):
        changed, more = campaign("first", 20_000 + number), campaign(f"more{number}")
        repository.add_target(FIRST, changed)
        repository.add_target(f"campaigns/more{number}.json", more)
        repository.publish(*ONLINE)
        wanted |= {FIRST: changed, f"campaigns/more{number}.json": more}
        if number % 5:
            continue  # the client sees every fifth version only
        world.expect_accepted()
        world.expect_documents(wanted)
        repository.serve_target(repository.targets.targets[FIRST], BAD)
        repository.publish(*ONLINE)
        world.refresh()
        world.expect_documents(wanted)


def hashed_by(algorithms: tuple[str, ...], world: World) -> None:
    world.repository.add_target(FIRST, HONEST, algorithms=algorithms)
    world.repository.publish(*ONLINE)
    world.init()
    world.expect_accepted()
    world.expect_documents({FIRST: HONEST})


def hashed_by_an_unknown_algorithm(world: World) -> None:
    target = TargetFile.from_data(FIRST, HONEST, ["sha256"])
    target.hashes = {"unknown": target.hashes["sha256"]}
    world.repository.targets.targets[FIRST] = target
    world.repository.serve_target(target, HONEST)
    world.repository.publish(*ONLINE)
    world.init()
    world.expect_refused()
    world.expect_documents({})


def a_held_target_is_not_sent_again(world: World) -> None:
    world.init()
    world.repository.add_target(FIRST, HONEST)
    world.repository.publish(*ONLINE)
    world.expect_accepted()
    world.expect_documents({FIRST: HONEST})
    assert world.client.request.have == (have(HONEST),)
    world.expect_accepted()
    world.expect_documents({FIRST: HONEST})


def cases() -> Iterator[Case]:
    file = "test_file_download.py"
    yield Case(f"{file}::test_client_downloads_expected_file", takes_a_target)
    yield Case(f"{file}::test_client_downloads_expected_file_in_sub_dir", takes_a_target)
    yield Case(f"{file}::test_repository_substitutes_target_file", targets_are_exchanged, Intent.WHOLE_RELEASE)
    yield Case(f"{file}::test_multiple_changes_to_target", a_target_changes_many_times)
    for number, algorithms in enumerate((("sha256",), ("sha512",), ("sha256", "sha512"))):
        intent = Intent.SHA256 if algorithms == ("sha512",) else None
        name = f"{file}::test_download_with_hash_algorithms[hashes{number}]"
        yield Case(name, partial(hashed_by, algorithms), intent)
    yield Case(f"{file}::test_download_with_unknown_hash_algorithm", hashed_by_an_unknown_algorithm)
    yield Case(f"{file}::test_artifact_cache", a_held_target_is_not_sent_again)
    for repository in ("tuf-on-ci-0.11", "sigstore-root-signing"):
        name = f"test_static_repositories.py::test_static_repository[{repository}]"
        yield Case(name, None, Intent.NOT_PLAYED)
