"""Cases of the suite's delegation graphs, expired delegated roles and unusual names of roles.

A graph is written as edges: "A B A>C B>D!" are delegations of targets to A and B, of A to C, and a terminating one of B
to D.  A pattern of paths may follow a colon.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from tests.agent.pushes.world import NOW, campaign
from tests.conformance.case import Case, Intent, World
from tests.conformance.repository import SNAPSHOT, TARGETS, TIME, Repository

GRAPHS = {
    "basic-delegation": ("A", "A"),
    "single-level-delegations": ("A B", "AB"),
    "two-level-delegations": ("A B B>C", "ABC"),
    "two-level-test-DFS-order-of-traversal": ("A B A>C A>D", "ACDB"),
    "three-level-delegation-test-DFS-order-of-traversal": ("A B A>C C>D", "ACDB"),
    "two-level-terminating-ignores-all-but-roles-descendants": ("A B A>C! A>D", "AC"),
    "three-level-terminating-ignores-all-but-roles-descendants": ("A B A>C! C>D", "ACD"),
    "two-level-ignores-all-branches-not-matching-paths": ("A:*.py B A>C", "B"),
    "three-level-ignores-all-branches-not-matching-paths": ("A B A>C:*.py C>D", "AB"),
    "cyclic-graph": ("A B B>C C>D D>B", "ABCD"),
    "two-roles-delegating-to-a-third": ("A B B>C A>C", "ACB"),
    "two-roles-delegating-to-a-third-different-paths": ("A B B>C A>C:*.py", "ABC"),
}
TREE = "A:campaigns/a* B:campaigns/b* B>C:campaigns/bc* B>D:campaigns/bd*"
SEARCHES = {
    # the name of the document, the role that lists it, and whether every delegation above this role covers it
    "no delegations": ("plain", TARGETS, True),
    "targetpath matches wildcard": ("a1", "A", True),
    "targetpath with separators x": ("bc1", "C", True),
    "targetpath with separators y": ("bd1", "D", True),
    "targetpath is not delegated by all roles in the chain": ("bx1", "D", False),
}


def grow(repository: Repository, edges: str) -> list[str]:
    """Add the delegations to the repository, and return the names of the delegated roles."""
    for edge in edges.split():
        ends, _, pattern = edge.partition(":")
        delegator, _, name = ends.rstrip("!").rpartition(">")
        repository.delegate(delegator or TARGETS, name, [pattern or "*"], terminating=ends.endswith("!"))
    return list(dict.fromkeys(role for role in repository.signed if len(role) == 1))


def walk(edges: str, order: str, world: World) -> None:
    world.init()
    roles = grow(world.repository, edges)
    world.repository.publish(*roles, TARGETS, SNAPSHOT, TIME)
    world.expect_accepted()
    world.expect_documents({})
    world.expect_visited(*order)


def search(name: str, role: str, delegated: bool, world: World) -> None:
    world.init()
    roles = grow(world.repository, TREE)
    path = f"campaigns/{name}.json"
    world.repository.add_target(path, campaign(name), role=role)
    world.repository.publish(*roles, TARGETS, SNAPSHOT, TIME)
    world.expect_accepted()
    world.expect_documents({path: campaign(name)} if delegated else {})
    if not delegated:
        world.expect_visited("B")


def unusual_name(name: str, world: World) -> None:
    world.init()
    world.repository.delegate(TARGETS, name, ["*"])
    world.repository.publish(name, TARGETS, SNAPSHOT, TIME)
    world.expect_accepted()
    world.expect_documents({})
    world.expect_visited(name)


def delegate_until(world: World, days: int) -> dict[str, bytes]:
    """Publish two documents by a delegated role that expires after some days, and return them."""
    repository = world.repository
    repository.delegate(TARGETS, "A", ["campaigns/*"])
    repository.signed["A"].expires = NOW + timedelta(days=days)
    documents = {f"campaigns/{name}.json": campaign(name) for name in ("first", "second")}
    for path, content in documents.items():
        repository.add_target(path, content, role="A")
    repository.publish("A", TARGETS, SNAPSHOT, TIME)
    return documents


def delegated_role_has_expired(world: World) -> None:
    world.init()
    delegate_until(world, -1)
    world.expect_accepted()
    world.expect_documents({})
    world.expect_trusted(root=1, timestamp=2, snapshot=2, targets=2)


def kept_delegated_role_expires(world: World) -> None:
    world.init()
    documents = delegate_until(world, 7)
    world.expect_accepted()
    world.expect_documents(documents)
    world.expect_accepted(day=18)


def kept_delegated_role_is_renewed(world: World) -> None:
    world.init()
    documents = delegate_until(world, 7)
    world.expect_accepted()
    world.expect_documents(documents)
    world.repository.signed["A"].expires = NOW + timedelta(days=21)
    world.repository.publish("A", SNAPSHOT, TIME)
    world.expect_accepted(day=18)
    world.expect_documents(documents)


def cases() -> Iterator[Case]:
    file = "test_updater_delegation_graphs.py"
    none = Intent.NO_DELEGATION
    for name, (edges, order) in GRAPHS.items():
        yield Case(f"{file}::test_graph_traversal[{name}]", partial(walk, edges, order), none)
    for name, (document, role, delegated) in SEARCHES.items():
        intent = None if role == TARGETS else none
        yield Case(f"{file}::test_targetfile_search[{name}]", partial(search, document, role, delegated), intent)
    for name in ("?", "#", "/delegatedrole", "../delegatedrole"):
        yield Case(f"test_quoting_issues.py::test_unusual_role_name[{name}]", partial(unusual_name, name), none)
    file = "test_delegated_expiration.py"
    yield Case(f"{file}::test_delegated_targets_expired", delegated_role_has_expired)
    yield Case(f"{file}::test_expired_local_delegated_targets", kept_delegated_role_expires, none)
    yield Case(f"{file}::test_expired_local_delegated_targets_updates", kept_delegated_role_is_renewed, none)
