"""Records on the platter what SQLite's own file layer writes, truncates, syncs and deletes.

A VFS that records these four operations, and is otherwise the default one, becomes the default of the library that the
`sqlite3` module uses.  So production code runs unchanged, and SQLite decides when to sync a file.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

from tests.powercut.platter import Inode, Platter

_OPEN_JOURNAL, _OPEN_WAL = 0x800, 0x80000
_XOPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_XDELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_XWRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_XTRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_XSYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("others", c_void_p * 14),
    ]


class _Methods(Structure):  # sqlite3_io_methods
    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    ]


class _Recorder:
    def __init__(self, platter: Platter, library: ctypes.CDLL) -> None:
        self._platter = platter
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        default = library.sqlite3_vfs_find(None).contents
        self.vfs = _Vfs.from_buffer_copy(default)
        self.vfs.name, self.vfs.next = b"platter", None
        self._open, self._delete = _XOPEN(default.open), _XDELETE(default.delete)
        self._files: dict[int, tuple[Path, Path | None]] = {}  # path, and folder to sync with it, by address
        self._methods: dict[int, _Methods] = {}  # by address of SQLite's; they differ for databases and journals
        self._kept = (_XOPEN(self.opened), _XDELETE(self.deleted))
        self._io = (_XWRITE(self.written), _XTRUNCATE(self.truncated), _XSYNC(self.synced))
        self.vfs.open, self.vfs.delete = (ctypes.cast(each, c_void_p) for each in self._kept)

    def opened(self, vfs: int, name: int | None, file: int, flags: int, out: "ctypes._Pointer[c_int]") -> int:
        path = None if name is None else Path(ctypes.string_at(name).decode())
        ours = path is not None and path.is_relative_to(self._platter.root)
        new = ours and path is not None and not path.exists()
        result = self._open(vfs, name, file, flags, out)
        if result == 0 and ours and path is not None:
            if new:
                self._platter.change({path: Inode()})
            syncs = path.parent if new and flags & (_OPEN_JOURNAL | _OPEN_WAL) else None  # as unixOpen does
            self._files[file] = path, syncs
            place = c_void_p.from_address(file)
            assert place.value is not None
            place.value = ctypes.addressof(self._methods.get(place.value) or self._recorded(place.value))
        return int(result)

    def _recorded(self, address: int) -> _Methods:
        original = _Methods.from_address(address)
        self._write, self._cut, self._sync = (
            _XWRITE(original.write),
            _XTRUNCATE(original.truncate),
            _XSYNC(original.sync),
        )
        ours = self._methods[address] = _Methods.from_buffer_copy(original)
        ours.write, ours.truncate, ours.sync = (ctypes.cast(each, c_void_p) for each in self._io)
        return ours

    def deleted(self, vfs: int, name: bytes, sync_folder: int) -> int:
        result = self._delete(vfs, name, sync_folder)
        path = Path(name.decode())
        if result == 0 and path.is_relative_to(self._platter.root):
            self._platter.change({path: None})
            if sync_folder:
                self._platter.sync_folder(path.parent)
        return int(result)

    def written(self, file: int, content: int, amount: int, offset: int) -> int:
        self._platter.data(self._files[file][0], offset, ctypes.string_at(content, amount))
        return int(self._write(file, content, amount, offset))

    def truncated(self, file: int, size: int) -> int:
        self._platter.data(self._files[file][0], size, None)
        return int(self._cut(file, size))

    def synced(self, file: int, flags: int) -> int:
        path, folder = self._files[file]
        result = self._sync(file, flags)
        self._platter.synced(path)
        if folder is not None:
            self._platter.sync_folder(folder)
            self._files[file] = path, None
        return int(result)


@contextlib.contextmanager
def recording(platter: Platter) -> Iterator[None]:
    """Record databases that are opened and closed within the `with` block on the platter."""
    library = ctypes.CDLL("libsqlite3.so.0")
    recorder = _Recorder(platter, library)
    assert library.sqlite3_vfs_register(byref(recorder.vfs), 1) == 0
    try:
        yield
    finally:
        assert library.sqlite3_vfs_unregister(byref(recorder.vfs)) == 0
