"""Stores how far each source and each campaign is durable, and which ring or log holds the frames of each bus.

Each append needs these values, so they are held in memory as well.  If a transaction does not commit, the index must be
closed, because memory then differs from the disk.  The index that is opened next reads the values from the disk.

Methods raise sqlite3.Error.  Methods that write must be called within a transaction.
"""

import functools
import sqlite3
from collections.abc import Mapping


class ResumePoints:
    """Stores, for each pair of a source and a campaign, the number of the first frame that is not durable.

    The key of a resume point has the form `<source>:<campaign>`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> dict[str, int]:
        """Return every resume point, by key."""
        return dict(self._points)

    @functools.cached_property
    def _points(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT source, point FROM resume_points"))

    def set(self, points: Mapping[str, int]) -> None:
        """Set `points`, and leave all other resume points unchanged."""
        self._db.executemany(
            "INSERT INTO resume_points VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET point = excluded.point",
            list(points.items()),
        )
        self._points.update(points)

    def replace(self, points: Mapping[str, int]) -> None:
        """Set `points`, and remove all other resume points."""
        self._db.execute("DELETE FROM resume_points")
        self._points.clear()
        self.set(points)


class Reached:
    """Stores the frame time up to which each campaign is durable in this run of the agent.

    For a campaign that has stored nothing yet, this is the time from which on the campaign collects.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> dict[str, int]:
        """Return up to which frame time each campaign is durable, in microseconds since the Unix epoch."""
        return dict(self._reached)

    @functools.cached_property
    def _reached(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT campaign, t_us FROM reached"))

    def set(self, campaign: str, t_us: int) -> None:
        """Note that a campaign is durable up to `t_us`."""
        self._db.execute("INSERT OR REPLACE INTO reached VALUES (?, ?)", (campaign, t_us))
        self._reached[campaign] = t_us

    def clear(self) -> None:
        """Forget all times."""
        self._db.execute("DELETE FROM reached")
        self._reached.clear()


class Buses:
    """Stores which buses the run collects from, and which ring or log holds their frames until they are durable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> dict[str, str]:
        """Return a mapping from each bus to the name of its ring or log.

        The name is "" if the frames of the bus are only in the agent's memory."""
        return dict(self._db.execute("SELECT bus, held_in FROM buses ORDER BY bus"))

    def replace(self, buses: Mapping[str, str]) -> None:
        """Set the buses of a new run."""
        self._db.execute("DELETE FROM buses")
        self._db.executemany("INSERT INTO buses VALUES (?, ?)", list(buses.items()))
