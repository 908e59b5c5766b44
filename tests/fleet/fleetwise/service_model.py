"""Documents made from botocore's service model of AWS IoT FleetWise, which is the oracle of their form.

A document is made at random from the model.  A fault is a copy of it with one change that the model forbids, and the
place of the change.
"""

import copy
import functools
import re
from collections.abc import Iterator
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator
from hypothesis import strategies as st

ROOT_KINDS = {
    "CreateCampaign": "campaign",
    "CreateDecoderManifest": "decoder manifest",
    "UpdateDecoderManifest": "decoder manifest",
    "CreateSignalCatalog": "signal catalogue",
    "CreateModelManifest": "model manifest",
    "CreateVehicle": "vehicle",
    "BatchCreateVehicle": "vehicles",
    "CreateStateTemplate": "state template",
}
"""The requests that are read, and the kinds of their documents."""
MAY_BE_MISSING = {"name", "signalCatalogArn", "targetArn", "modelManifestArn", "nodes"}
"""Required fields of a request that a file may lack: the command line of AWS takes them from its arguments, and answers
have no nodes."""
NOT_LIMITED = {"SignalDecoders", "NetworkInterfaces", "Nodes", "Fqns", "InterfaceIds", "NodePaths"} | {
    "CreateModelManifestRequestNodesList"
}
"""Lists that the command line of AWS makes longer than one request may have, because it joins pages of an answer."""
NOT_CHECKED = {"arn", "CreateDecoderManifestRequestModelManifestArnString", "TimestreamTableArn", "IAMRoleArn"} | {
    "MqttTopicArn",
    "S3BucketArn",
    "Prefix",
}
"""Texts that name things in the account of AWS.  Their patterns are not compared."""


@functools.cache
def model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("iotfleetwise", "service-2"))


def request(operation: str) -> Shape:
    shape = model().operation_model(operation).input_shape
    assert shape is not None
    return shape


def is_valid(operation: str, document: dict[str, Any]) -> bool:
    """Return whether botocore itself would send the document."""
    return not ParamValidator().validate(document, request(operation)).has_errors()


def documents(shape: Shape, *, recursion: int = 2) -> st.SearchStrategy[Any]:
    """Return documents of a shape."""
    inner = functools.partial(documents, recursion=recursion)
    if shape.type_name == "structure":
        return _structures(shape, recursion)
    if shape.type_name == "list":
        least = shape.metadata.get("min", 0)
        return st.lists(inner(shape.member), min_size=least, max_size=max(least, min(shape.metadata.get("max", 3), 3)))
    if shape.type_name == "map":
        return st.dictionaries(inner(shape.key), inner(shape.value), max_size=3)
    if shape.type_name == "boolean":
        return st.booleans()
    if shape.type_name in ("integer", "long"):
        return st.integers(shape.metadata.get("min", 0), shape.metadata.get("max", 2**31 - 1))
    if shape.type_name in ("double", "float"):
        return st.floats(allow_nan=False, allow_infinity=False, width=32)
    if shape.type_name == "timestamp":
        return st.sampled_from((1_700_000_000, 1_700_000_000.5, "2026-07-01T08:00:00Z"))
    assert shape.type_name == "string", shape.type_name
    return _texts(shape)


def _texts(shape: Shape) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    pattern = shape.metadata.get("pattern")
    if shape.name == "S3BucketArn":
        return st.just("arn:aws:s3:::fleet-bucket")
    if shape.name == "IAMRoleArn":
        return st.just("arn:aws:iam::123456789012:role/fleet")
    if shape.name == "TimestreamTableArn":
        return st.just("arn:aws:timestream:eu-central-1:123456789012:database/d/table/t")
    if shape.name == "MqttTopicArn":
        return st.just("arn:aws:iot:eu-central-1:123456789012:topic/t")
    if shape.name == "CreateDecoderManifestRequestModelManifestArnString":
        return st.just("arn:aws:iotfleetwise:eu-central-1:123456789012:model-manifest/m")
    least, most = shape.metadata.get("min", 0), min(shape.metadata.get("max", 30), 30)
    if pattern:
        texts = st.from_regex(re.compile(f"(?:{pattern})\\Z", re.ASCII), fullmatch=True)
        return texts.map(lambda text: text[:most]).filter(
            lambda text: re.fullmatch(pattern, text, re.ASCII) is not None
        )
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=least, max_size=most)


@st.composite
def _structures(draw: st.DrawFn, shape: Any, recursion: int) -> dict[str, Any]:
    members = dict(shape.members)
    if recursion == 0:
        # StructuredMessage contains itself.
        members = {
            name: each for name, each in members.items() if each.type_name != "list" or "Message" not in each.name
        }
        members.pop("structuredMessageListDefinition", None)
    if shape.is_tagged_union:
        chosen = [draw(st.sampled_from(sorted(members)))]
    else:
        chosen = [name for name in members if name in shape.required_members or draw(st.booleans())]
    deeper = recursion - 1 if shape.name == "StructuredMessage" else recursion
    return {name: draw(documents(members[name], recursion=deeper)) for name in chosen}


def faults(shape: Any, document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (what, place, document) for each fault that the model forbids.  A place is like `a.b[0].c`."""
    for what, path, changed in _faults(shape, document, ()):
        yield what, path_text(path), changed


def path_text(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _faults(shape: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    if shape.type_name == "structure":
        yield from _of_structure(shape, value, path)
    elif shape.type_name == "list":
        yield from _of_list(shape, value, path)
    elif shape.type_name == "map":
        if path != ():
            yield "type", path, ["no map"]
    elif shape.type_name == "string":
        yield from _of_text(shape, path)
    elif shape.type_name == "boolean":
        yield "type", path, "true"
    elif shape.type_name in ("integer", "long"):
        yield "type", path, "1"
        yield "type", path, 1.5
        if "min" in shape.metadata:
            yield "low", path, shape.metadata["min"] - 1
        if "max" in shape.metadata:
            yield "high", path, shape.metadata["max"] + 1
    elif shape.type_name in ("double", "float"):
        yield "type", path, "1.5"


def _of_structure(
    shape: Any, value: dict[str, Any], path: tuple[str | int, ...]
) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    yield "unknown", path, {**value, "notAField": 1}
    if path:
        yield "type", path, "no object"
    for name, inner in value.items():
        if name in shape.required_members and not (path == () and name in MAY_BE_MISSING):
            yield "missing", path, {key: each for key, each in value.items() if key != name}
        if shape.is_tagged_union:
            yield "none", path, {}
        for what, where, changed in _faults(shape.members[name], inner, (*path, name)):
            yield what, where, {**value, name: changed}


def _of_list(
    shape: Any, value: list[Any], path: tuple[str | int, ...]
) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    yield "type", path, "no list"
    if shape.metadata.get("min", 0) > 0 and shape.name not in NOT_LIMITED:
        yield "short", path, []
    if "max" in shape.metadata and value and shape.name not in NOT_LIMITED:
        yield "long", path, [copy.deepcopy(value[0]) for _ in range(shape.metadata["max"] + 1)]
    for index, each in enumerate(value):
        for what, where, changed in _faults(shape.member, each, (*path, index)):
            yield what, where, [*value[:index], changed, *value[index + 1 :]]


def _of_text(shape: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    yield "type", path, 5
    if shape.enum:
        yield "enum", path, "NOT_ONE_OF_THEM"
        return
    if shape.name in NOT_CHECKED:
        return
    if shape.metadata.get("min", 0) > 0:
        yield "short", path, ""
    if "max" in shape.metadata:
        yield "long", path, "a" * (shape.metadata["max"] + 1)
    pattern = shape.metadata.get("pattern")
    if pattern:
        for wrong in ("a b", "a\n", "\x07", "ä", "a..b"):
            if re.fullmatch(pattern, wrong, re.ASCII) is None and re.fullmatch(pattern, wrong) is None:
                yield "pattern", path, wrong
