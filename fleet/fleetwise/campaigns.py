"""Turns campaigns and state templates of FleetWise into campaigns of ours.  Pure.

Our campaigns have the JSON of AWS's API, so little changes.  `agent.formats.down.campaign` decides what a vehicle can
do; what it refuses is refused here with its words.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.campaign import Campaign, parse_campaign
from agent.system.words import counted
from agent.telemetry.collect.names import is_glob
from fleet.fleetwise.findings import Remarks
from fleet.fleetwise.forms import CampaignForm, StateTemplateForm
from fleet.fleetwise.signals import Known

_NAME: Final = re.compile(r"[^a-zA-Z\d\-_:]+")
_FIELD: Final = re.compile(r"(?P<field>[A-Za-z][\w.\[\]]*)[:,]? (?P<why>.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$variable\.`([^`]+)`")
_EDGES: Final = "MULTI_RISING_EDGE_TRIGGER"
EDGE_NAMES: Final = "Vehicle.MultiRisingEdgeTrigger"
"""Not a signal of a bus, but the names of the edges that rose (FleetWise Edge's developer guide)."""
_STATE_PERIOD_MS: Final = 10_000
_PARTITIONS: Final = (
    "data that is stored in the vehicle and sent when a condition holds, or when the fleet asks for it, is not "
    "supported in this version"
)


class Refused(Exception):
    """Raised if a campaign cannot be taken over; `key` is the path of the field at fault."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


class Taken(msgspec.Struct, frozen=True):
    """A campaign of ours: its name and the content of its document."""

    name: str
    content: Mapping[str, Any]

    def document(self) -> bytes:
        """Return the document as JSON."""
        return (json.dumps(self.content, indent=2, ensure_ascii=False) + "\n").encode()


def name_from(file: str) -> str:
    """Return the name that a document without one gets from its file."""
    stem = file.rpartition("/")[2].rpartition(".")[0] or file
    return _NAME.sub("-", stem).strip("-")[:100] or "campaign"


def take_campaign(
    content: Mapping[str, Any], form: CampaignForm, file: str, known: Known | None, remarks: Remarks
) -> Taken:
    """Return our campaign for a campaign of FleetWise, and add what is different to `remarks`.

    `known` has the signals of the decoder manifest; None if there is none, and then no name is checked.

    Raises: Refused.
    """
    if form.data_partitions:
        key = next(
            (f"dataPartitions[{n}].uploadOptions" for n, p in enumerate(form.data_partitions) if p.upload_options), ""
        )
        raise Refused(key or "dataPartitions", f"{_PARTITIONS}: remove it to send all data at once")
    ours = {key: value for key, value in content.items() if value is not None}
    ours.setdefault("name", name_from(file))
    _leave_out(ours, remarks)
    _apply_action(ours, remarks)
    try:
        campaign = parse_campaign(ours, file)
    except Permanent as error:
        raise _refused(str(error).removeprefix(f"{file}: "), ours) from error
    if known is not None:
        _check_names(campaign, form, known, remarks)
    return Taken(campaign.name, ours)


def _refused(message: str, ours: Mapping[str, Any]) -> Refused:
    """Return the refusal by our own reader of campaigns, whose message begins with the path of a field or has none."""
    found = _FIELD.match(message)
    if found is None or re.split(r"[.\[]", found["field"])[0] not in ours:
        return Refused("", message)
    return Refused(found["field"], f"it {found['why']}" if found["why"].startswith("is ") else found["why"])


def _leave_out(ours: dict[str, Any], remarks: Remarks) -> None:
    """Leave out the fields that change nothing about the samples, but something else."""
    dimensions = ours.pop("dataExtraDimensions", None)
    if dimensions:
        remarks.add(
            "dataExtraDimensions",
            f"samples carry no attributes of the vehicle ({', '.join(dimensions)}); join the lake's samples with what "
            "you know of the vehicle (docs/lake.md)",
        )
    if ours.pop("diagnosticsMode", "OFF") != "OFF":
        remarks.add("diagnosticsMode", "this version does not collect diagnostic trouble codes; all else is collected")


def _apply_action(ours: dict[str, Any], remarks: Remarks) -> None:
    """Replace CloudFormation's `Action`, which tells AWS what to do with the campaign."""
    action = ours.pop("action", None)
    if action == "SUSPEND":
        ours["status"] = "SUSPENDED"
        remarks.add("Action", "SUSPEND became the status SUSPENDED")
    for field in ("message", "nextToken"):
        ours.pop(field, None)


def _check_names(campaign: Campaign, form: CampaignForm, known: Known, remarks: Remarks) -> None:
    """Compare the names of signals with the decoder manifest.  Raises: Refused if nothing could be collected."""
    condition = form.collection_scheme.condition_based_collection_scheme
    expression = "" if condition is None else condition.expression
    for name in dict.fromkeys(_VARIABLE.findall(expression)):
        if (why := known.obstacle(name)) is not None:
            key = "collectionScheme.conditionBasedCollectionScheme.expression"
            # Another pair of this function may still rise.
            if _EDGES not in expression:
                raise Refused(key, f"{name}: {why}, so the condition could never be true")
            remarks.add(key, f"{name}: {why}; it stays undefined")
    without = []
    for index, rule in enumerate(campaign.rules):
        if rule.name == EDGE_NAMES and _EDGES in expression:
            continue
        if is_glob(rule.name):
            found, missed = known.by_glob(rule.name)
            if found and missed:
                remarks.add(f"signalsToCollect[{index}].name", _missed(rule.name, missed))
            why = None if found else _missed(rule.name, missed)
        else:
            obstacle = known.obstacle(rule.name)
            why = None if obstacle is None else f"{rule.name}: {obstacle}"
        if why is not None:
            without.append((index, why))
    if without and len(without) == len(campaign.rules):
        others = len(without) - 1
        more = f", and there is an obstacle to {counted(others, 'other name')} too" if others else ""
        raise Refused(f"signalsToCollect[{without[0][0]}].name", f"{without[0][1]}{more}; nothing would be collected")
    for index, text in without:
        remarks.add(f"signalsToCollect[{index}].name", text)


def _missed(glob: str, missed: Sequence[str]) -> str:
    if not missed:
        return f"{glob}: no CAN signal of the decoder manifest has such a name"
    return f"{glob}: a glob does not find {missed[0]}, which has its name from a mapping; name it in full"


def take_state_template(
    form: StateTemplateForm, file: str, strategies: Sequence[int | None], known: Known | None, remarks: Remarks
) -> Taken:
    """Return a campaign that collects the changes of the signals of a state template.

    `strategies` are those of the vehicles that use the template: the milliseconds of a periodic one, and None for one
    that sends at changes.

    Raises: Refused.
    """
    name = form.name or name_from(file)
    periods = {each for each in strategies if each is not None}
    rule: dict[str, Any] = {"onChange": True}
    if periods:
        rule = {"minimumSamplingIntervalMs": min(periods)}
    content: dict[str, Any] = {
        "name": name,
        "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": _STATE_PERIOD_MS}},
        "signalsToCollect": [{"name": path, **rule} for path in form.state_template_properties],
    }
    if form.description:
        content["description"] = form.description
    what = f"samples at least {min(periods):,} ms apart" if periods else "changes"
    remarks.add(
        "",
        f"a state template became a campaign that sends {what} every {_STATE_PERIOD_MS // 1000} s; the state at "
        "the time of activation is not sent",
    )
    if len(periods) > 1 or (periods and None in strategies):
        remarks.add("", "vehicles use this template at different rates; the campaign has the highest")
    for field in ("dataExtraDimensions", "metadataExtraDimensions"):
        given = form.data_extra_dimensions if field == "dataExtraDimensions" else form.metadata_extra_dimensions
        if given:
            remarks.add(field, f"samples carry no attributes of the vehicle ({', '.join(given)})")
    return take_campaign(content, _form_of(content), file, known, remarks)


def _form_of(content: Mapping[str, Any]) -> CampaignForm:
    # `onChange` is our extension, which is no field of the form.
    signals = [{"name": signal["name"]} for signal in content["signalsToCollect"]]
    return msgspec.convert({**content, "signalsToCollect": signals}, CampaignForm)
