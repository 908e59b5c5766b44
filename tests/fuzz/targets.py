"""Lists the targets of the fuzzer: how inputs are made, which code reads them, and which errors it may raise.

`share` is the share of all inputs that a target gets.  It depends on the cost of an input and on how much there is to
find: an MF4 log takes a forked process and some 20 ms, a plan some microseconds.
"""

import hashlib
import random
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from agent.errors import AgentError
from agent.sources import logs
from agent.sources.mf4 import Mf4Messages
from agent.sources.replay import read_blocks
from can_dbc import cache as plan_cache
from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError, DecodeError
from can_dbc.frames import FrameBlock
from can_dbc.plan import BusPlan, Match
from can_dbc.values import physical, text_keys
from tests import shared_data
from tests.fuzz import languages, seeds
from tests.fuzz.forked import Forked
from tests.fuzz.mutate import mutated, overwritten

_DEMO = Path(__file__).parents[2] / "can_dbc" / "dbc"
_RECORD_BYTES = 80
_SMALL_BYTES = 60_000  # larger databases take too long to load
_LEAVES: Sequence[Any] = (
    None, 0, 1, -1, 2, 7, 8, 63, 64, 65, 255, 511, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 0.5, float("nan"),
    float("inf"), "", "x", True, [], {}, [0], [1, 1], {0: "a"}, {"0": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader under test.  An exception of `read` that is none of `errors` is a failure."""

    name: str
    share: float
    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]


# ---------------------------------------------------------------- databases


def _make_database(chance: random.Random) -> bytes:
    return mutated(chance, seeds.DBC, seeds.DBC_WORDS)


def _read_database(content: bytes) -> None:
    """Check that a database that loads can be compiled, cached and read back equal, and decodes any frames."""
    database = parse(content, "dbc", "fuzzed")
    for match in Match:
        plan = compile_plan([database], match)
        _decode_random(plan, random.Random(content))
        try:
            kept = plan_cache.to_bytes(plan)
        except (
            OverflowError,
            ValueError,
        ):  # MessagePack has no numbers beyond 64 bits, so such a plan is compiled at each start.
            continue
        assert plan_cache.from_bytes(kept, match) == plan


# ---------------------------------------------------------------- the plan cache


@cache
def _plans() -> tuple[BusPlan, ...]:
    """Return small plans: the plans of the seeds, and one plan for each message of the demonstration vehicle."""
    plans = [compile_plan([parse(content, "dbc", "seed")], match) for content in seeds.DBC for match in Match]
    plans += [compile_plan([seeds.containers()], match) for match in Match]
    for file in sorted(_DEMO.glob("*.dbc")):
        whole = compile_plan([parse(file.read_bytes(), "dbc", file.name)])
        plans += [BusPlan((message,), whole.match) for message in whole.messages]
    return tuple(plans)


@cache
def _bodies() -> tuple[bytes, ...]:
    return tuple(msgspec.msgpack.encode(plan) for plan in _plans())


def _make_plan(chance: random.Random) -> bytes:
    """Make a plan with damaged bytes or with other values.  Most plans get a correct digest again."""
    if chance.random() < 0.05:
        return mutated(chance, [plan_cache.to_bytes(plan) for plan in _plans()[:4]])
    if chance.random() < 0.4:
        body = mutated(chance, _bodies())
    else:
        tree = msgspec.msgpack.decode(chance.choice(_bodies()), strict=False)
        for _ in range(chance.choice((1, 1, 2, 3))):
            _replace(chance, tree)
        body = msgspec.msgpack.encode(tree)
    return hashlib.sha256(body).digest() + body


def _replace(chance: random.Random, tree: Any) -> None:
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and chance.random() < 0.95:
            tree = tree[key]
            continue
        change = chance.random()
        if isinstance(tree, list) and change < 0.1:
            del tree[key]
        elif isinstance(tree, list) and change < 0.2:
            tree.append(deepcopy(tree[key]))
        elif isinstance(tree[key], int) and change < 0.5:
            tree[key] = min(max(tree[key] + chance.choice((-1, 1, 8, 64)), -(2**63)), 2**64 - 1)
        else:
            tree[key] = deepcopy(chance.choice(_LEAVES))
        return


def _read_plan(content: bytes) -> None:
    for match in Match:
        plan = plan_cache.from_bytes(content, match)
        if plan is not None:
            _decode_random(plan, random.Random(content))


# ---------------------------------------------------------------- the decoder


@cache
def _decoder_plans() -> tuple[BusPlan, ...]:
    """Return the plans of the seeds, and the plans of the open databases if they are installed."""
    plans = list(_plans())
    for path in shared_data.databases():
        if path.stat().st_size <= _SMALL_BYTES:
            try:
                plans += [compile_plan([parse(path.read_bytes(), "dbc", path.name)], match) for match in Match]
            except DatabaseError:
                continue
    return tuple(plans)


@cache
def _decoders() -> tuple[tuple[BusPlan, Decoder], ...]:
    """Return two decoders for each plan: buses 0 and 1 with all signals, and bus 0 with every second signal."""
    found = []
    for plan in _decoder_plans():
        found.append((plan, Decoder({0: plan, 1: plan})))
        found.append((plan, Decoder({0: plan}, lambda _, message: range(0, len(message.signals), 2))))
    return tuple(found)


def _make_frames(chance: random.Random) -> bytes:
    """Make an input: the number of one of `_decoders`, followed by records of frames."""
    number = chance.randrange(len(_decoders()))
    return number.to_bytes(2, "little") + chance.randbytes(_RECORD_BYTES * chance.randrange(24))


def _read_frames(content: bytes) -> None:
    chosen = int.from_bytes(content[:2].ljust(2, b"\0"), "little") % len(_decoders())
    plan, decoder = _decoders()[chosen]
    _decode(decoder, _block(plan, content[2:]), whole=chosen % 2 == 0)


def _decode_random(plan: BusPlan, chance: random.Random) -> None:
    _decode(Decoder({0: plan}), _block(plan, chance.randbytes(_RECORD_BYTES * 8)), whole=True)


def _block(plan: BusPlan, content: bytes) -> FrameBlock:
    """Return a block that a source may deliver.  Three of four frames are long enough frames of a message of `plan`."""
    count = len(content) // _RECORD_BYTES
    records = np.frombuffer(content[: count * _RECORD_BYTES], np.uint8).reshape(count, _RECORD_BYTES)
    can_id = np.ascontiguousarray(records[:, 0:4]).view(np.uint32).ravel().copy()
    flags, length = records[:, 4].copy(), records[:, 5] % 65
    for row in np.flatnonzero(records[:, 6] % 4) if plan.messages else ():
        message = plan.messages[int(can_id[row]) % len(plan.messages)]
        sender = int(records[row, 7]) if message.extended else 0
        can_id[row] = message.can_id ^ (sender if sender % 2 else 0)
        flags[row] = int(message.extended)
        length[row] = min(64, message.length)
    return FrameBlock(
        np.ascontiguousarray(records[:, 8:16]).view(np.int64).ravel(),
        records[:, 7] // 128,
        can_id,
        flags,
        length.astype(np.uint8),
        np.where(np.arange(64) < length[:, None], records[:, 16:80], 0).astype(np.uint8),
        tuple(f"can{number}" for number in range(256)),
    )


def _decode(decoder: Decoder, block: FrameBlock, *, whole: bool) -> None:
    """Check that each frame and each PDU is decoded once or refused once.  With `whole`, all signals are wanted."""
    decoded = decoder.decode(block)
    rows = [row for columns in decoded.columns for row in columns.rows.tolist()]
    refused = sum(refusal.frames for refusal in decoded.refusals)
    expected = len(block) - decoded.containers + decoded.pdus
    assert len(rows) == len(set(rows)) or decoded.containers
    assert len(rows) + refused == expected if whole else len(rows) + refused <= expected
    for columns in decoded.columns:
        for signal, raw in zip(columns.signals, columns.raw, strict=True):
            values = physical(columns.message.signals[signal], raw)
            keys = text_keys(columns.message.signals[signal], raw)
            assert values.shape == keys.shape == columns.t_ns.shape


# ---------------------------------------------------------------- logs


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="fuzzed-")


def _log(name: str, suffix: str, share: float) -> Target:
    seed = "." + suffix.rsplit(".", 1)[-1]
    words = seeds.TEXT_WORDS if seed in (".log", ".asc", ".trc") else ()

    def make(chance: random.Random) -> bytes:
        if seed in seeds.PACK and chance.random() < 0.3:  # The compression is valid, and its content is damaged.
            return seeds.packed(seed, mutated(chance, seeds.CANDUMP, seeds.TEXT_WORDS))
        if seed == ".mf4" and chance.random() < 0.7:  # Inserted bytes would break most links between blocks.
            return overwritten(chance, seeds.log(seed))
        return mutated(chance, seeds.log(seed), words)

    def read(content: bytes) -> None:
        path = Path(_folder().name) / f"fuzzed{suffix}"
        path.write_bytes(content)
        with patch.object(logs, "Mf4Messages", partial(Mf4Messages, start=Forked)):
            for block in read_blocks(path):
                assert len(block)

    return Target(name, share, make, read, (AgentError,))


TARGETS: Sequence[Target] = (
    Target("dbc", 0.12, _make_database, _read_database, (DatabaseError, DecodeError)),
    Target("plan_cache", 0.15, _make_plan, _read_plan, ()),
    Target("decoder", 0.15, _make_frames, _read_frames, ()),
    Target("formula", 0.07, languages.make_formula, languages.read_formula, languages.FORMULA_ERRORS),
    Target("mapping", 0.03, languages.make_mapping, languages.read_mapping, languages.MAPPING_ERRORS),
    _log("candump", ".log", 0.15),
    _log("asc", ".asc", 0.10),
    _log("blf", ".blf", 0.07),
    _log("trc", ".trc", 0.06),
    _log("gz", ".log.gz", 0.04),
    _log("zst", ".log.zst", 0.04),
    _log("mf4", ".mf4", 0.02),
)
