"""Provides a fleet with one vehicle as fixtures, as in the tests of `fleet`."""

from tests.fleet.conftest import fleet, vehicle

__all__ = ["fleet", "vehicle"]
