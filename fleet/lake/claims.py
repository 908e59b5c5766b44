"""Defines the claims by which receivers keep other receivers out of their partitions of a lake (fleet.lake.tables)."""

from collections.abc import Mapping

from deltalake import Transaction

from agent.errors import Permanent

Generations = Mapping[int, int]
"""The generation of each partition, 0 or absent for a partition that was never claimed."""


class Fenced(Permanent):
    """Raised if another receiver has claimed a partition of this receiver.  Nothing was appended then."""


def claim_id(partition: int) -> str:
    """Return the app id under which the lake has the generation of a partition."""
    return f"headunit-claim/{partition}"


def transactions_of(generations: Generations) -> list[Transaction]:
    """Return the app transactions that a commit repeats to show that its receiver still has the partitions."""
    return [Transaction(claim_id(partition), generation) for partition, generation in generations.items()]
