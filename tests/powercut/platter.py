"""Simulates a disk that forgets what was not synced.

Every operation is carried out in a folder and recorded.  The record says what a power cut at any moment might leave.
The rules are the worst that POSIX allows:

- Synced data and names survive.
- Each write to a file since its last fsync survives, is lost, or survives in part (in sectors of 512 bytes), in any
  order.  The same holds for the length of the file.
- Each name that was made, renamed or removed since the last fsync of its folder survives or is lost.
- A write does not change neighbouring bytes (powersafe overwrite).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.system.durable import Disk

SECTOR = 512
Forgets = Callable[[str, Path], bool]
"""Returns whether a sync ("file" or "folder") of a path is left out, as a planted bug."""


@dataclass(eq=False)
class Inode:
    """A file: its durable content, and what is not synced: (offset, bytes) written, or (length, None) truncated."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.durable = self.after(lambda _: True, lambda _: True)
        self.pending = []

    def after(self, kept: Callable[[int], bool], sector: Callable[[int], bool]) -> bytearray:
        content = bytearray(self.durable)
        for number, (offset, written) in enumerate(self.pending):
            if not kept(number):
                continue
            if written is None:
                del content[offset:]
                content.extend(bytes(offset - len(content)))
                continue
            start = 0
            while start < len(written):
                end = min(len(written), start + SECTOR - (offset + start) % SECTOR)
                if sector(number):
                    content.extend(bytes(max(0, offset + end - len(content))))
                    content[offset + start : offset + end] = written[start:end]
                start = end
        return content


FOLDER = Inode()
Change = dict[Path, Inode | None]


class Model:
    """Follows the operations, and knows which names and contents are durable."""

    def __init__(self) -> None:
        self.names: dict[Path, Inode] = {}  # the names as the programs see them
        self.durable: dict[Path, Inode] = {}
        self.pending: list[Change] = []

    def inode(self, path: Path) -> Inode:
        if path not in self.names:
            self.change({path: Inode()})
        return self.names[path]

    def change(self, change: Change) -> None:
        self.pending.append(change)
        _apply(self.names, change)

    def sync_folder(self, folder: Path) -> None:
        rest: list[Change] = []
        for change in self.pending:
            if any(path.parent == folder for path in change):
                _apply(self.durable, change)
            else:
                rest.append(change)
        self.pending = rest

    def cut(self, chance: random.Random) -> dict[Path, bytes | None]:
        """Return what a power cut at this moment might leave: the content by path, or None for a folder."""
        names = dict(self.durable)
        keep = _chooser(chance)
        for change in self.pending:
            if keep(0):
                _apply(names, change)
        left: dict[Path, bytes | None] = {}
        for path, inode in names.items():
            left[path] = None if inode is FOLDER else bytes(inode.after(_chooser(chance), _chooser(chance)))
        return left


def _apply(names: dict[Path, Inode], change: Change) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _chooser(chance: random.Random) -> Callable[[int], bool]:
    """Return a function that chooses nothing, everything, or each by chance."""
    share = chance.choice((0.0, 1.0, 0.5, 0.9, 0.1))
    return lambda _: chance.random() < share


Operation = Callable[[Model], None]


class Platter(Disk):
    """A disk that carries out each operation below `root` and records it in `operations`."""

    def __init__(self, root: Path, forgets: Forgets = lambda _kind, _path: False) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self._forgets = forgets

    def note(self, operation: Operation) -> None:
        self.operations.append(operation)

    def data(self, path: Path, offset: int, written: bytes | None) -> None:
        self.note(lambda model: model.inode(path).pending.append((offset, written)))

    def synced(self, path: Path) -> None:
        if not self._forgets("file", path):
            self.note(lambda model: model.inode(path).sync())

    def change(self, change: Change) -> None:
        self.note(lambda model: model.change(change))

    def write_synced(self, path: Path, content: bytes, mode: int) -> None:
        super().write_synced(path, content, mode)
        self.data(path, 0, None)  # truncates an existing file, or makes a new one
        for start in range(0, len(content), 4 * SECTOR):
            self.data(path, start, content[start : start + 4 * SECTOR])
        self.synced(path)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.note(lambda model: model.change({source: None, target: model.names[source]}))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.change({path: None})

    def make_folder(self, folder: Path) -> None:
        super().make_folder(folder)
        self.change({folder: FOLDER})

    def remove_folder(self, folder: Path) -> None:
        super().remove_folder(folder)
        self.change({folder: None})

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        if not self._forgets("folder", folder):
            self.note(lambda model: model.sync_folder(folder))


def lay_out(left: dict[Path, bytes | None], root: Path, target: Path) -> None:
    """Write what a cut left of `root` below `target`.  Files in a folder that is lost are lost, too."""
    target.mkdir()
    for path in sorted(left):
        place = target / path.relative_to(root)
        if not place.parent.is_dir():
            continue
        content = left[path]
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
