from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoleVersions(_message.Message):
    __slots__ = ("root", "timestamp", "snapshot", "targets", "bin")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    BIN_FIELD_NUMBER: _ClassVar[int]
    root: int
    timestamp: int
    snapshot: int
    targets: int
    bin: int
    def __init__(self, root: _Optional[int] = ..., timestamp: _Optional[int] = ..., snapshot: _Optional[int] = ..., targets: _Optional[int] = ..., bin: _Optional[int] = ...) -> None: ...

class SyncRequest(_message.Message):
    __slots__ = ("format", "vehicle", "held", "applied", "refused", "have", "software")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    format: int
    vehicle: str
    held: RoleVersions
    applied: int
    refused: int
    have: _containers.RepeatedScalarFieldContainer[bytes]
    software: str
    def __init__(self, format: _Optional[int] = ..., vehicle: _Optional[str] = ..., held: _Optional[_Union[RoleVersions, _Mapping]] = ..., applied: _Optional[int] = ..., refused: _Optional[int] = ..., have: _Optional[_Iterable[bytes]] = ..., software: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("format", "files")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    format: int
    files: _containers.ScalarMap[str, bytes]
    def __init__(self, format: _Optional[int] = ..., files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class ChunkName(_message.Message):
    __slots__ = ("sha256", "index")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    index: int
    def __init__(self, sha256: _Optional[bytes] = ..., index: _Optional[int] = ...) -> None: ...

class ChunkRequest(_message.Message):
    __slots__ = ("format", "vehicle", "chunks")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    format: int
    vehicle: str
    chunks: _containers.RepeatedCompositeFieldContainer[ChunkName]
    def __init__(self, format: _Optional[int] = ..., vehicle: _Optional[str] = ..., chunks: _Optional[_Iterable[_Union[ChunkName, _Mapping]]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("format", "name", "content")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    format: int
    name: ChunkName
    content: bytes
    def __init__(self, format: _Optional[int] = ..., name: _Optional[_Union[ChunkName, _Mapping]] = ..., content: _Optional[bytes] = ...) -> None: ...
