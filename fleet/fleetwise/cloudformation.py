"""Turns resources of a CloudFormation template into documents of AWS's API.  Pure.

CloudFormation spells properties with a capital letter, and gives the numbers of decoders as texts.  Values that
CloudFormation computes (`Ref`, `Fn::Sub`, ...) are unknown here.  They are left out of fields that have no effect, and
refused elsewhere.
"""

from collections.abc import Mapping
from typing import Any, Final

RESOURCES: Final[Mapping[str, str]] = {
    "AWS::IoTFleetWise::Campaign": "campaign",
    "AWS::IoTFleetWise::DecoderManifest": "decoder manifest",
    "AWS::IoTFleetWise::SignalCatalog": "signal catalogue",
    "AWS::IoTFleetWise::ModelManifest": "model manifest",
    "AWS::IoTFleetWise::Vehicle": "vehicle",
    "AWS::IoTFleetWise::StateTemplate": "state template",
}
"""The types of resources that are documents of FleetWise."""

_PREFIX: Final = "AWS::IoTFleetWise::"
_AS_THEY_ARE: Final = frozenset(("attributes",))
"""Fields whose value is a map with names of the user's own."""
_NO_EFFECT: Final = frozenset(
    ("arn", "signalCatalogArn", "targetArn", "modelManifestArn", "decoderManifestArn", "dataDestinationConfigs", "tags")
)
"""Fields that name things in the account of AWS.  A value that CloudFormation computes is left out there."""
_BOOLEANS: Final = frozenset(("isBigEndian", "isSigned", "useExtendedIds", "hasTransmissionEcu"))
_FLOATS: Final = frozenset(("factor", "offset", "scaling", "min", "max"))
_WHOLE: Final = frozenset(
    ("messageId", "startBit", "length", "pidResponseLength", "serviceMode", "pid", "startByte", "byteLength")
) | frozenset(
    ("bitRightShift", "bitMaskLength", "requestMessageId", "pidRequestIntervalSeconds", "dtcRequestIntervalSeconds")
)


class ComputedValue(Exception):
    """Raised if CloudFormation computes a value that is needed here.  `key` is the path of the field."""

    def __init__(self, key: str, function: str) -> None:
        super().__init__(
            f"CloudFormation computes this value ({function}); write the value, or import what `aws iotfleetwise "
            "get-...` prints"
        )
        self.key = key


def is_template(content: Any) -> bool:
    """Return whether `content` is a CloudFormation template."""
    return isinstance(content, Mapping) and isinstance(content.get("Resources"), Mapping)


def is_fleetwise(kind: str) -> bool:
    """Return whether a resource of this type belongs to FleetWise."""
    return kind.startswith(_PREFIX)


def has_capitals(content: Any) -> bool:
    """Return whether `content` is an object whose fields begin with capital letters, as properties of a resource do."""
    return isinstance(content, Mapping) and bool(content) and all(str(key)[:1].isupper() for key in content)


def properties(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the properties of a resource as a document of AWS's API.  Raises: ComputedValue."""
    document: dict[str, Any] = {}
    for key, value in content.items():
        spelt = _api_name(str(key))
        if spelt in _NO_EFFECT:
            document[spelt] = _without_computed(value, spelt)
        else:
            document[spelt] = _converted(value, spelt, str(key))
    document = {key: value for key, value in document.items() if value is not None}
    if kind == "vehicle":
        document["vehicleName"] = document.pop("name", None)
        document.setdefault("modelManifestArn", "")
        document.setdefault("decoderManifestArn", "")
    return document


def _api_name(key: str) -> str:
    return key[:1].lower() + key[1:]


def _function(value: Any) -> str | None:
    """Return the name of the function if CloudFormation computes the value."""
    if isinstance(value, Mapping) and len(value) == 1:
        name = str(next(iter(value)))
        if name == "Ref" or name.startswith("Fn::"):
            return name
    return None


def _without_computed(value: Any, key: str) -> Any:
    if key == "tags" or _has_computed(value):
        return None
    return _converted(value, key, key)


def _has_computed(value: Any) -> bool:
    if _function(value) is not None:
        return True
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_has_computed(each) for each in inner)


def _converted(value: Any, key: str, place: str) -> Any:
    """Return a value in the spelling and with the types of the API; `place` is its path for messages."""
    if (function := _function(value)) is not None:
        raise ComputedValue(place, function)
    if isinstance(value, Mapping):
        if key in _AS_THEY_ARE:
            return dict(value)
        return {
            _api_name(str(inner)): _converted(each, _api_name(str(inner)), f"{place}.{inner}")
            for inner, each in value.items()
        }
    if isinstance(value, list):
        return [_converted(each, key, f"{place}[{index}]") for index, each in enumerate(value)]
    return _typed(value, key) if isinstance(value, str) else value


def _typed(value: str, key: str) -> Any:
    """Return the value of a text that stands for a number or a truth, or the text if it is neither."""
    if key in _BOOLEANS:
        return {"true": True, "false": False}.get(value.lower(), value)
    if key in _WHOLE | _FLOATS:
        try:
            return int(value) if key in _WHOLE else float(value)
        except ValueError:
            return value
    return value
