"""All cases, in the order of the suite's files."""

from tests.conformance import basic, delegations, downloads, expiry, keys, rollbacks, rotations

CASES = tuple(
    case for module in (basic, expiry, downloads, keys, rollbacks, rotations, delegations) for case in module.cases()
)
