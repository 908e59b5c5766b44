"""Lets file operations and the database of a spool fail, or "lose power", at a chosen moment."""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any, Literal

from agent.system.durable import Disk

Mode = Literal["fail", "crash"]


class Crash(BaseException):
    """Simulates the sudden end of the process.  No production code may handle this exception."""


class Fault:
    """Lets `after` operations pass, then fails or crashes once, after (`done`) or in place of the next operation."""

    def __init__(self) -> None:
        self.armed = False
        self.code = errno.ENOSPC

    def arm(self, mode: Mode, after: int, *, done: bool, code: int = errno.ENOSPC) -> None:
        self.armed, self.mode, self.left, self.done, self.code = True, mode, after, done, code

    def disarm(self) -> None:
        self.armed = False

    def due(self) -> bool:
        if not self.armed:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.armed = False
        return True

    def strike(self, *, sqlite: bool) -> None:
        if self.mode == "crash":
            raise Crash
        if sqlite:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[misc]
            raise error
        raise OSError(self.code, os.strerror(self.code))


class FlakyDisk(Disk):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def create_file(self, path: Path, content: bytes) -> None:
        if self._fault.due():
            if self._fault.done and self._fault.mode == "crash":
                super().create_file(path, content)
            elif self._fault.mode == "crash":
                path.write_bytes(content[: len(content) // 2])
            self._fault.strike(sqlite=False)
        super().create_file(path, content)

    def remove(self, path: Path) -> None:
        if self._fault.due():
            if self._fault.done:
                super().remove(path)
            self._fault.strike(sqlite=False)
        super().remove(path)


class FlakyConnection(sqlite3.Connection):
    fault: Fault

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.fault.due():
            if self.fault.done:
                super().execute(statement)
            self.fault.strike(sqlite=True)
        return super().execute(statement, *values)


def connector(fault: Fault) -> Any:
    def open_database(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FlakyConnection)
        assert isinstance(database, FlakyConnection)
        database.fault = fault
        return database

    return open_database
