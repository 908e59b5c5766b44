"""Keeps the fleet's record of each vehicle, in one JSON file for each vehicle.

Invariant: a batch reaches the lake only if its vehicle is in the registry and is not revoked.  A running receiver sees
enrolments and revocations at once: each look-up compares the file's time and size, and reads a changed file again.

The receiver notes the software that a vehicle reports in a file of its own.  If it rewrote the record, it could undo a
revocation that another process writes at the same moment.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.topics import is_vehicle
from agent.system.durable import write_file
from fleet.state.vehicle_record import VehicleRecord

_TICK_NS: Final = 1_000_000_000
"""Longer than a tick of the clock of any file system that has file modes, which a fleet folder needs."""

_SOFTWARE: Final = ".software"
"""The suffix of the file in which the reported software of a vehicle is noted."""


class _Listed(msgspec.Struct, frozen=True):
    """Holds the fields of a record that decide which documents are for the vehicle."""

    brand: str
    model: str
    market: str
    model_year: int
    revoked: bool
    software: str = ""


_listed = msgspec.json.Decoder(_Listed)


class Registry:
    """Reads and writes the records in `folder`.  A record is parsed again only if its file has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsed: dict[str, tuple[tuple[int, int], VehicleRecord, tuple[ec.EllipticCurvePublicKey, ...]]] = {}

    def find(self, vehicle: str) -> tuple[VehicleRecord, tuple[ec.EllipticCurvePublicKey, ...]] | None:
        """Return the record and the public device keys of `vehicle`, or None if it is not enrolled.

        Raises: Permanent if the record's file is damaged or cannot be read.
        """
        # The name may come from the network.  It must not become a path such as `../keys/x`.
        if not is_vehicle(vehicle):
            return None
        path = self._path(vehicle)
        try:
            status = path.stat()
            # The version includes the size, because two changes may fall into one tick of the file system's clock.
            version = (status.st_mtime_ns, status.st_size)
            known = self._parsed.get(vehicle)
            if known is None or known[0] != version:
                record = _parse(path)
                known = (version, record, record.device_keys())
                self._parsed[vehicle] = known
        except FileNotFoundError:
            # The record may have been deleted while this process ran.  The vehicle is then not enrolled any more.
            self._parsed.pop(vehicle, None)
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        return known[1], known[2]

    def read(self, vehicle: str) -> VehicleRecord | None:
        """Return the record of `vehicle` from its file, or None if it is not enrolled.  Nothing is kept in memory.

        Raises: Permanent if the record's file is damaged or cannot be read.
        """
        if not is_vehicle(vehicle):
            return None
        path = self._path(vehicle)
        try:
            record = _parse(path)
            return msgspec.structs.replace(record, software=self._software(vehicle) or record.software)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error

    def names(self) -> list[str]:
        """Return the pseudonyms of all vehicles that were ever enrolled, in order."""
        return sorted(path.stem for path in self._folder.glob("*.json") if is_vehicle(path.stem))

    def recorded_us(self) -> dict[str, int]:
        """Return when the record of each vehicle, or its software, last changed: µs of Unix time.  Nothing is parsed.

        Raises: Permanent if the folder cannot be read.
        """
        try:
            times: dict[str, dict[str, int]] = {".json": {}, _SOFTWARE: {}}
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name, _, suffix = entry.name.partition(".")
                    if f".{suffix}" in times and is_vehicle(name):
                        times[f".{suffix}"][name] = entry.stat().st_mtime_ns // 1_000
        except OSError as error:
            raise _unreadable(self._folder, error) from error
        return {name: max(changed, times[_SOFTWARE].get(name, 0)) for name, changed in times[".json"].items()}

    def stamp(self) -> object:
        """Return a value that changes whenever a record is added, changed or removed, or None just after a change.

        Raises: Permanent if the folder cannot be read.
        """
        try:
            status = self._folder.stat()
        except OSError as error:
            raise _unreadable(self._folder, error) from error
        # Each record is written to a new file that is renamed, which changes the time of the folder.  Two changes may
        # fall into one tick of the file system's clock, so the time tells nothing until the tick has certainly passed.
        settled = abs(time.time_ns() - status.st_mtime_ns) > _TICK_NS
        return (status.st_mtime_ns, status.st_ino) if settled else None

    def enrolled(self) -> Iterator[Attributes | Permanent]:
        """Yield the attributes of each vehicle that is enrolled and not revoked, in the order of their names.

        A record that cannot be read yields its error instead.  This is some five times faster than `read` for each of
        `names`, because no path object and no certificate is made, and nothing is kept.
        """
        folder = os.fspath(self._folder)
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries}
        for vehicle in sorted(name.removesuffix(".json") for name in files if name.endswith(".json")):
            if not is_vehicle(vehicle):
                continue
            path = f"{folder}/{vehicle}"
            try:
                listed = _listed.decode(_content(f"{path}.json"))
                noted = _content(path + _SOFTWARE).decode() if vehicle + _SOFTWARE in files else ""
            except FileNotFoundError:
                continue  # The record was deleted meanwhile.
            except OSError as error:
                yield _unreadable(Path(f"{path}.json"), error)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield _damaged(Path(f"{path}.json"), error)
            else:
                if not listed.revoked:
                    yield Attributes(
                        vehicle,
                        listed.brand,
                        listed.model,
                        listed.market,
                        listed.model_year,
                        noted or listed.software,
                    )

    def note_software(self, vehicle: str, software: str) -> None:
        """Store durably which version of its software the enrolled `vehicle` reports."""
        write_file(self._path(vehicle).with_suffix(_SOFTWARE), software.encode())

    def add(self, record: VehicleRecord) -> None:
        """Store `record` durably.  It replaces an earlier record of the same vehicle."""
        document = json.dumps(msgspec.to_builtins(record), indent=2) + "\n"
        write_file(self._path(record.vehicle), document.encode())

    def require(self, vehicle: str) -> VehicleRecord:
        """Return the record of `vehicle`.  Raises: Permanent if the vehicle is not enrolled, or as `read` does."""
        record = self.read(vehicle)
        if record is None:
            raise Permanent(f"No vehicle {vehicle} is enrolled in {self._folder}. Check the name of the vehicle.")
        return record

    def revoke(self, vehicle: str) -> VehicleRecord:
        """Mark `vehicle` as revoked, and return its new record.  Raises: Permanent if the vehicle is not enrolled."""
        return self._mark(vehicle, revoked=True)

    def reinstate(self, vehicle: str) -> VehicleRecord:
        """Take back a revocation, and return the new record.  Raises: Permanent if the vehicle is not enrolled."""
        return self._mark(vehicle, revoked=False)

    def change(self, vehicle: str, changed: Callable[[VehicleRecord], VehicleRecord]) -> VehicleRecord:
        """Replace the record of `vehicle` by what `changed` makes of it, durably, and return the new record.

        Changes of several processes come one after the other, so that a renewal never undoes a revocation.

        Raises: Permanent if the vehicle is not enrolled, and whatever `changed` raises.  The record then stays.
        """
        with (self._folder / ".lock").open("a", encoding="ascii") as lock:
            # The kernel releases the lock when the file is closed, even after a crash.
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = changed(self.require(vehicle))
            self.add(record)
        return record

    def _mark(self, vehicle: str, *, revoked: bool) -> VehicleRecord:
        return self.change(vehicle, lambda record: msgspec.structs.replace(record, revoked=revoked))

    def _software(self, vehicle: str) -> str:
        try:
            return self._path(vehicle).with_suffix(_SOFTWARE).read_text()
        except FileNotFoundError:
            return ""

    def _path(self, vehicle: str) -> Path:
        return self._folder / f"{vehicle}.json"


def _unreadable(path: Path, error: OSError) -> Permanent:
    return Permanent(f"The registry's {path} cannot be read ({error.strerror}). Check its permissions and the disk.")


def _parse(path: Path) -> VehicleRecord:
    try:
        return msgspec.json.decode(path.read_bytes(), type=VehicleRecord)
    except msgspec.DecodeError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Permanent:
    return Permanent(f"The vehicle's record {path} is damaged ({error}). Restore the file from the fleet's backup.")


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # No record has more than a few kB.
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)
