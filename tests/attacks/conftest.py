"""Provides a fleet for each attack on it."""

from tests.fleet.conftest import fleet

__all__ = ["fleet"]
