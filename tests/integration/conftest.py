"""A fleet with one vehicle, as in the tests of `fleet`; tests that need another one say so themselves."""

from tests.fleet.conftest import fleet, vehicle

__all__ = ["fleet", "vehicle"]
