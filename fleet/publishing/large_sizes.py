"""Checks that no vehicle gets more large documents than it takes, before anything is signed."""

from collections.abc import Callable, Iterable, Sequence

from tuf.api.metadata import TargetFile

from agent.errors import Permanent
from agent.formats.down.chunks import DOCUMENT_BYTES, PACKED_BYTES, LargeFile
from fleet.publishing.large import large_file_of
from fleet.publishing.population import Population

_Described = tuple[TargetFile, LargeFile]


def refuse_too_much(targets: Iterable[TargetFile], population: Callable[[], Population]) -> None:
    """Check the large documents of each enrolled vehicle, and those for vehicles that will be enrolled later.

    `population` is called only if all documents together exceed what one vehicle takes, because reading the records of
    all vehicles takes long.

    Raises: Permanent naming a vehicle and its documents.
    """
    large = [(target, file) for target in targets if (file := large_file_of(target)) is not None]
    if _fits(large):
        return
    _check("Every vehicle", [each for each in large if "audience" not in (each[0].custom or {})])
    enrolled = population()
    of_vehicle: dict[str, list[_Described]] = {}
    for each in large:
        for vehicle in enrolled.vehicles(each[0]):
            of_vehicle.setdefault(vehicle, []).append(each)
    for vehicle, files in of_vehicle.items():
        _check(f"Vehicle {vehicle}", files)


def _check(who: str, files: Sequence[_Described]) -> None:
    if not _fits(files):
        packed, size = _sizes(files)
        raise Permanent(
            f"{who} would get large documents of {size:,} bytes ({packed:,} packed): "
            f"{', '.join(target.path for target, _ in files)}. A vehicle takes at most {DOCUMENT_BYTES:,} "
            f"({PACKED_BYTES:,} packed). Remove some, or publish them for fewer vehicles."
        )


def _fits(files: Iterable[_Described]) -> bool:
    packed, size = _sizes(files)
    return packed <= PACKED_BYTES and size <= DOCUMENT_BYTES


def _sizes(files: Iterable[_Described]) -> tuple[int, int]:
    """Return the bytes of all packed files, and of all documents."""
    described = [file for _, file in files]
    return sum(file.size_bytes for file in described), sum(file.document_bytes for file in described)
