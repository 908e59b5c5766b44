"""Keeps compiled plans on disk, so that a start need not parse databases or import cantools.

Each bus has one file, `<key>.plan`.  The file holds a SHA-256 digest (32 bytes), followed by the BusPlan in
MessagePack.  The digest covers the MessagePack bytes.  The key is a SHA-256 over everything that determines the plan:
the names, contents, formats, encodings and chosen buses of the databases in their order, the match mode, the code that
reads and compiles them, and the version of cantools.  A changed database therefore has a new key, and its old plan is
never read.

A file is checked before it is used: its digest, its types, and every index and length that the decoder relies on.  If a
check fails, the plan is compiled again and the file is replaced.

Invariant: a plan from the cache equals the plan that compiling the databases now would give.  A cache that cannot be
read or written makes a start slower, but never prevents it.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from can_dbc import database
from can_dbc.compile import compile_plan
from can_dbc.plan import HEADER_IDS, BusPlan, Match, MessagePlan, MultiplexerPlan, match_key
from can_dbc.values import FLOAT_OF_BITS, WORD_BITS

SUFFIX: Final = ".plan"
KEPT: Final = 16  # files, enough for all buses of a vehicle before and after a change of its databases
MAX_BYTES: Final = 64 * 1024 * 1024  # A database of 5 MB makes a plan of 2 MB.
Contents = Sequence[tuple[Path, bytes, str]]
"""The name, the content and the format of each database of a bus, in their order."""
_DIGEST_BYTES: Final = 32
NO_ENCODINGS: Final[Mapping[Path, str]] = MappingProxyType({})
_MOST_BYTES: Final = 65_535  # the longest message that database.py accepts
_CODE: Final = (
    *("plan.py", "compile.py", "defects.py", "description.py", "values.py", "database.py", "encodings.py", "cache.py"),
    *("buses.py", "by_cantools.py", "arxml.py", "compu_method.py", "kcd.py", "sym.py", "noted.py"),
    *("dbc_reader/statements.py", "dbc_reader/entries.py", "dbc_reader/multiplexing.py", "dbc_reader/describing.py"),
    *("dbc_reader/reader.py", "dbc_reader/notes.py"),
)
_BITS_OF_FLOAT: Final = {kind: bits for bits, kind in FLOAT_OF_BITS.items()}


class PlanCache:
    """Reads plans from a folder, and compiles and stores the plans that are missing.

    `compiled` counts the plans that this instance compiled.  `problem` says why a plan could not be stored, or is None.
    """

    def __init__(
        self, folder: Path, write: Callable[[Path, bytes], None], compile_ahead: Callable[[], None] | None = None
    ) -> None:
        """Keep the plans in `folder`.

        `write(path, content)` must replace a file durably or raise OSError.  `compile_ahead` is called once, when the
        first missing plan is found.  It may compile and store plans in another process.
        """
        self._folder = folder
        self._write = write
        self._compile_ahead = compile_ahead
        self.compiled = 0
        self.problem: str | None = None

    def plan(self, files: Sequence[Path], match: Match, encodings: Mapping[Path, str] = NO_ENCODINGS) -> BusPlan:
        """Return the plan of the bus that the databases `files` describe together; an earlier file takes precedence.

        `encodings` has the encodings of the files for which the owner names one.

        Raises: DatabaseError if a database cannot be read or compiled.
        """
        contents = [(file, *database.read(file)) for file in files]
        plan = self.stored(contents, match, encodings)
        # Importing cantools in this process would keep its memory allocated, so another process compiles first.
        if plan is None and self._compile_ahead is not None:
            compile_ahead, self._compile_ahead = self._compile_ahead, None
            compile_ahead()
            plan = self.stored(contents, match, encodings)
        if plan is None:
            plan = compile_plan(
                [database.parse(content, kind, str(file), encodings.get(file)) for file, content, kind in contents],
                match,
            )
            self.compiled += 1
            self.store(contents, match, encodings, plan)
        return plan

    def stored(self, contents: Contents, match: Match, encodings: Mapping[Path, str]) -> BusPlan | None:
        """Return the stored plan of the databases with these `contents`, or None if it is missing or damaged."""
        return _read(self._path(contents, match, encodings), match)

    def store(self, contents: Contents, match: Match, encodings: Mapping[Path, str], plan: BusPlan) -> None:
        """Store the plan of the databases with these `contents`.  If that fails, `problem` says why."""
        self._keep(self._path(contents, match, encodings), plan)

    def _path(self, contents: Contents, match: Match, encodings: Mapping[Path, str]) -> Path:
        return self._folder / f"{_key(contents, match, encodings)}{SUFFIX}"

    def _keep(self, path: Path, plan: BusPlan) -> None:
        try:
            content = to_bytes(plan)
        except (OverflowError, ValueError) as error:  # a number exceeds 64 bits, or the plan reads back differently
            self.problem = (
                f"{path.name}: the plan cannot be stored ({error}), so it is compiled at each start; "
                "find the numbers in the databases of the bus that are NaN or exceed 64 bits, and correct them"
            )
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, content)
            files = sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
            # Plans of replaced databases are never read again, so only the newest files are kept.
            for old in files[:-KEPT]:
                old.unlink()
        except OSError as error:
            self.problem = (
                f"{self._folder}: plans cannot be stored ({error.strerror or error}), so the databases are compiled "
                "at each start; check the folder, its permissions and the free space"
            )


def to_bytes(plan: BusPlan) -> bytes:
    """Return the content of a cache file that holds `plan`.

    Raises: OverflowError if a number exceeds 64 bits, ValueError if the plan would read back differently.
    """
    body = msgspec.msgpack.encode(plan)
    # A plan that reads back differently must not be stored.  An example is a scale of NaN, which never equals itself.
    if _decoded(body) != plan:
        raise ValueError("it reads back differently")
    return hashlib.sha256(body).digest() + body


def from_bytes(content: bytes, match: Match) -> BusPlan | None:
    """Return the plan from the content of a cache file.

    Return None if the content is damaged or malformed, or if the plan is for another match mode.
    """
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    plan = _decoded(body)
    if plan is None or plan.match is not match or not _is_coherent(plan):
        return None
    return plan


def _key(contents: Contents, match: Match, encodings: Mapping[Path, str]) -> str:
    # Each item is hashed on its own first.  Otherwise the same bytes, divided differently, would give the same key.
    parts = [b"can_dbc plan", _cantools_version().encode(), match.encode()]
    parts += [(Path(__file__).parent / name).read_bytes() for name in _CODE]
    for file, content, kind in contents:
        # Notes name the file, and its name may choose a bus, so the same content under another name has another plan.
        parts += [kind.encode(), content, str(file).encode(errors="surrogateescape"), encodings.get(file, "").encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _cantools_version() -> str:
    """Return the name of cantools' metadata folder, which holds its version, such as "cantools-45.1.0.dist-info"."""
    spec = importlib.util.find_spec("cantools")
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parents[1].glob("cantools-*.dist-info"))
    if len(found) == 1:
        return found[0].name
    # Importing this module costs 3 % of a start and 1 MB, so only an installation without that folder pays for it.
    from importlib.metadata import version  # noqa: PLC0415

    return version("cantools")


def _read(path: Path, match: Match) -> BusPlan | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        content = path.read_bytes()
    except OSError:  # The file is missing or unreadable, so the plan is compiled.
        return None
    return from_bytes(content, match)


def _decoded(body: bytes) -> BusPlan | None:
    try:
        return msgspec.msgpack.decode(body, type=BusPlan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_coherent(plan: BusPlan) -> bool:
    """Return whether the messages of `plan` have distinct keys, and whether all indices and lengths are valid."""
    keys = {match_key(message.can_id, message.extended, plan.match) for message in plan.messages}
    return len(keys) == len(plan.messages) and all(_is_sound(message) and _holds(message) for message in plan.messages)


def _holds(message: MessagePlan) -> bool:
    """Return whether `message`, at the top level of a plan, fits together with the messages that it contains.

    All of these conditions must hold:

    - `message` has no header id.
    - A container has no signals, no multiplexers and no defect.
    - The contained messages have valid, distinct header ids.
    - Each contained message is sound by itself, has the identifier of `message`, and is not a container.
    """
    inner = message.contained
    header_ids = {m.header_id for m in inner if m.header_id is not None and 0 <= m.header_id < HEADER_IDS}
    return (
        message.header_id is None
        and not (inner and (message.signals or message.multiplexers or message.defect))
        and len(header_ids) == len(inner)
        and all((m.can_id, m.extended, m.contained) == (message.can_id, message.extended, ()) for m in inner)
        and all(map(_is_sound, inner))
    )


def _is_sound(message: MessagePlan) -> bool:
    count = len(message.signals)
    return (
        0 <= message.can_id < 1 << (29 if message.extended else 11)
        and 0 <= message.length <= _MOST_BYTES
        and message.defect in (None, "container")
        and all(_fits(message, number) for number in range(count))
        and all(_selects(message, multiplexer) for multiplexer in message.multiplexers)
        and len({m.signal for m in message.multiplexers}) == len(message.multiplexers)
    )


def _fits(message: MessagePlan, number: int) -> bool:
    signal = message.signals[number]
    if not (signal.start >= 0 and 1 <= signal.bits <= WORD_BITS):
        return False
    if signal.bits != _BITS_OF_FLOAT.get(signal.kind, signal.bits):
        return False
    if signal.multiplexer is not None:
        selecting = [m for m in message.multiplexers if m.signal == signal.multiplexer]
        if not selecting or not set(signal.multiplexer_ids) <= set(selecting[0].numbers):
            return False
    elif signal.multiplexer_ids:
        return False
    return signal.first_bit + signal.bits <= 8 * message.length


def _selects(message: MessagePlan, multiplexer: MultiplexerPlan) -> bool:
    numbers = multiplexer.numbers
    return (
        0 <= multiplexer.signal < len(message.signals)
        and list(numbers) == sorted(set(numbers))
        and set(multiplexer.named.values()) <= set(numbers)
    )
