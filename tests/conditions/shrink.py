"""Makes a failing triple smaller while it fails: fewer frames, fewer cuts, fewer fields, a simpler condition."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.conditions.language import Node, Refused, read_tree
from tests.conditions.triples import Triple

Fails = Callable[[Triple], bool]


def shrink(triple: Triple, fails: Fails) -> Triple:
    """Return a triple that fails too, and of which nothing more can be left out one by one."""
    while True:
        smaller = _fewer_frames(triple, fails)
        for candidate in (*_fewer_cuts(smaller), *_simpler_documents(smaller)):
            if fails(candidate):
                smaller = candidate
                break
        else:
            if smaller == triple:
                return triple
        triple = smaller


def _fewer_frames(triple: Triple, fails: Fails) -> Triple:
    size = len(triple.frames) // 2
    while size:
        start = 0
        while start < len(triple.frames):
            candidate = _without(triple, start, min(start + size, len(triple.frames)))
            if candidate.frames and fails(candidate):
                triple = candidate
            else:
                start += size
        size //= 2
    return triple


def _without(triple: Triple, start: int, stop: int) -> Triple:
    frames = triple.frames[:start] + triple.frames[stop:]
    cuts = tuple(max(start, place - (stop - start)) if place > start else place for place in triple.cuts)
    return replace(triple, frames=frames, cuts=cuts)


def _fewer_cuts(triple: Triple) -> Iterator[Triple]:
    if triple.cuts:
        yield replace(triple, cuts=())
    for number in range(len(triple.cuts)):
        yield replace(triple, cuts=triple.cuts[:number] + triple.cuts[number + 1 :])


def _simpler_documents(triple: Triple) -> Iterator[Triple]:
    document = triple.document
    for key in ("startTime", "expiryTime", "priority", "status", "postTriggerCollectionDuration"):
        if key in document:
            yield replace(triple, document={name: value for name, value in document.items() if name != key})
    for number, signal in enumerate(document.get("signalsToCollect", [])):
        yield _with(triple, lambda copied, number=number: copied["signalsToCollect"].pop(number))
        for key in set(signal) - {"name"}:
            yield _with(triple, lambda copied, n=number, key=key: copied["signalsToCollect"][n].pop(key))
        half = signal.get("maxSampleCount", 1) // 2
        if half:
            change = {"maxSampleCount": half}
            yield _with(triple, lambda copied, n=number, change=change: copied["signalsToCollect"][n].update(change))
    scheme = _scheme(document)
    for key in ("minimumTriggerIntervalMs", "conditionLanguageVersion", "triggerMode"):
        if key in scheme:
            yield _with(triple, lambda copied, key=key: _scheme(copied).pop(key))
    for text in _simpler(scheme["expression"]):
        yield _with(triple, lambda copied, text=text: _scheme(copied).update(expression=text))


def _with(triple: Triple, change: Callable[[Any], object]) -> Triple:
    document = copy.deepcopy(dict(triple.document))
    change(document)
    return replace(triple, document=document)


def _scheme(document: Mapping[str, Any]) -> Any:
    return document["collectionScheme"]["conditionBasedCollectionScheme"]


def _simpler(text: str) -> Iterator[str]:
    """Yield expressions in which a node is replaced by one of its operands, or by a number."""
    try:
        tree = read_tree(text)
    except Refused:
        return
    for node in _nodes(tree):
        for operand in node.operands:
            inner = f"({text[operand.first - 1 : operand.last]})"
            replaced = text[: node.first - 1] + inner + text[node.last :]
            if len(replaced) < len(text):
                yield replaced
        if node.last - node.first > 3:
            yield text[: node.first - 1] + "1" + text[node.last :]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for operand in node.operands:
        yield from _nodes(operand)
