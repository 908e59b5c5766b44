"""`fleet import fleetwise` reads the documents of a fleet, and reports what became of each.

The campaigns have the features of those in FleetWise Edge's own repository: conditions with functions, diagnostic
requests, custom decoders, partitions of data, cameras.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.errors import Permanent
from agent.formats.down.campaign import parse_campaign
from fleet.__main__ import main
from tests.fleet.fleetwise.test_decoders import INTERFACE, decoder

PRESSURE, TORQUE = "Vehicle.Brakes.Pressure", "Vehicle.Engine.Torque"
HEARTBEAT = {"timeBasedCollectionScheme": {"periodMs": 10_000}}
DECODERS = [
    decoder(PRESSURE, messageId=1, length=16, factor=0.1),
    decoder(TORQUE, messageId=2, length=16, isSigned=True, isBigEndian=True, startBit=24),
    {
        "fullyQualifiedName": "Vehicle.Place.Latitude",
        "type": "CUSTOM_DECODING_SIGNAL",
        "interfaceId": "GNSS",
        "customDecodingSignal": {"id": "latitude"},
    },
    {
        "fullyQualifiedName": "Vehicle.OBD.Speed",
        "type": "OBD_SIGNAL",
        "interfaceId": "0",
        "obdSignal": {
            "pidResponseLength": 1,
            "serviceMode": 1,
            "pid": 13,
            "scaling": 1.0,
            "offset": 0.0,
            "startByte": 0,
            "byteLength": 1,
        },
    },
]
OBD_INTERFACE = {
    "interfaceId": "0",
    "type": "OBD_INTERFACE",
    "obdInterface": {"name": "can0", "requestMessageId": 2015},
}


def condition(expression: str, **fields: Any) -> dict[str, Any]:
    return {"conditionBasedCollectionScheme": {"conditionLanguageVersion": 1, "expression": expression, **fields}}


def campaign(scheme: dict[str, Any] = HEARTBEAT, *signals: str, **fields: Any) -> dict[str, Any]:
    named = {"signalsToCollect": [{"name": name} for name in signals]}
    return {"collectionScheme": scheme, "compression": "SNAPPY", "spoolingMode": "TO_DISK", **named, **fields}


def partition(expression: str | None) -> dict[str, Any]:
    storage = {
        "maximumSize": {"unit": "MB", "value": 5},
        "storageLocation": "stored",
        "minimumTimeToLive": {"unit": "DAYS", "value": 3},
    }
    upload = {} if expression is None else {"uploadOptions": {"expression": expression}}
    return {"dataPartitions": [{"id": "kept", "storageOptions": storage, **upload}]}


def conditions_are_read() -> bool:
    """Return whether the agent of this checkout has condition-based campaigns."""
    try:
        parse_campaign({"name": "x", **campaign(condition(f"$variable.`{PRESSURE}` > 1"), PRESSURE)}, "x")
    except Permanent:
        return False
    return True


def imported(folder: Path, capsys: pytest.CaptureFixture[str], documents: dict[str, Any]) -> dict[str, Any]:
    """Import `documents`, given by the names of their files, and return the report by the name of the file."""
    files = []
    for name, content in documents.items():
        file = folder / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        files.append(str(file))
    status = main(["import", "fleetwise", *files, "--out", str(folder / "out"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == (1 if report["counts"]["refused"] else 0)
    assert json.loads((folder / "out" / "report.json").read_text()) == report
    found: dict[str, Any] = {}
    for each in report["documents"]:
        name = Path(each["file"]).name
        found[f"{name}:{each['place']}" if each["place"] else name] = each
    return found


def outcome(found: dict[str, Any]) -> tuple[str, list[str]]:
    return found["outcome"], [remark["key"] for remark in found["remarks"]]


def test_campaigns_with_the_features_of_the_original_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expression = "collectionScheme.conditionBasedCollectionScheme.expression"
    pressed, twisted = f"$variable.`{PRESSURE}`", f"$variable.`{TORQUE}`"
    power = f"custom_function('pow', custom_function('pow', {twisted}, 2) + custom_function('pow', {pressed}, 2), 0.5)"
    edges = f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {twisted} > 500, 'B', {pressed} > 70)"
    fetch = {"fullyQualifiedName": "Vehicle.DTC", "actions": ['custom_function("DTC_QUERY", -1, 4, -1)']}
    found = imported(
        tmp_path,
        capsys,
        {
            "heartbeat.json": campaign(HEARTBEAT, PRESSURE, "Vehicle.Engine.*"),
            "braking.json": campaign(
                condition(f"{pressed} > 70", minimumTriggerIntervalMs=1000, triggerMode="ALWAYS"),
                PRESSURE,
                postTriggerCollectionDuration=1000,
                diagnosticsMode="OFF",
            ),
            "power.json": campaign(condition(f"{power} > 100", triggerMode="RISING_EDGE"), TORQUE, PRESSURE),
            "edges.json": campaign(condition(edges), "Vehicle.MultiRisingEdgeTrigger"),
            "codes.json": campaign(HEARTBEAT, PRESSURE, diagnosticsMode="SEND_ACTIVE_DTCS"),
            "dimensions.json": campaign(HEARTBEAT, PRESSURE, dataExtraDimensions=["Vehicle.Color"]),
            "partly.json": campaign(HEARTBEAT, "Vehicle.Place.Latitude", PRESSURE, "Vehicle.Engine.Torqe"),
            "place.json": campaign(HEARTBEAT, "Vehicle.Place.Latitude"),
            "obd.json": campaign(HEARTBEAT, "Vehicle.OBD.Speed"),
            "camera.json": campaign(condition("$variable.`Vehicle.Camera.X` < -1"), PRESSURE),
            "python.json": campaign(condition(f"custom_function('python', 'p', {pressed})"), PRESSURE),
            "sine.json": campaign(condition(f"custom_function('sin', {pressed}) > 0.5"), PRESSURE),
            "store.json": campaign(HEARTBEAT, PRESSURE, **partition(None)),
            "upload.json": campaign(HEARTBEAT, PRESSURE, **partition(f"{pressed} > 70")),
            "fetch.json": campaign(
                HEARTBEAT,
                PRESSURE,
                signalsToFetch=[{**fetch, "signalFetchConfig": {"timeBased": {"executionFrequencyMs": 5000}}}],
            ),
            "decoders.json": DECODERS,
            "interfaces.json": [INTERFACE, OBD_INTERFACE],
        },
    )
    taken_condition = (
        ("taken", []) if conditions_are_read() else ("refused", ["collectionScheme.conditionBasedCollectionScheme"])
    )
    refused_condition = ("refused", [expression if conditions_are_read() else expression.rpartition(".")[0]])
    assert {name: outcome(each) for name, each in found.items()} == {
        "heartbeat.json": ("taken", []),
        "braking.json": taken_condition,
        "power.json": taken_condition,
        "edges.json": taken_condition,
        "codes.json": ("difference", ["diagnosticsMode"]),
        "dimensions.json": ("difference", ["dataExtraDimensions"]),
        "partly.json": ("difference", ["signalsToCollect[0].name", "signalsToCollect[2].name"]),
        "place.json": ("refused", ["signalsToCollect[0].name"]),
        "obd.json": ("refused", ["signalsToCollect[0].name"]),
        "camera.json": refused_condition,
        "python.json": refused_condition,
        "sine.json": refused_condition,
        "store.json": ("refused", ["dataPartitions"]),
        "upload.json": ("refused", ["dataPartitions[0].uploadOptions"]),
        "fetch.json": ("refused", ["signalsToFetch"]),
        "decoders.json": ("difference", ["signalDecoders[2]", "signalDecoders[3]"]),
        "interfaces.json": ("difference", ["networkInterfaces[1]"]),
    }
    assert "diagnostic requests (OBD)" in found["obd.json"]["remarks"][0]["text"]
    # What was written is what vehicles read, under the name of the file.
    for file in (tmp_path / "out" / "campaigns").iterdir():
        assert parse_campaign(file.read_bytes(), file.name).name == file.stem
    assert (tmp_path / "out" / "dbc" / "can0" / "decoders.dbc").exists()
    assert not (tmp_path / "out" / "mapping").exists()


TEMPLATE = """\
AWSTemplateFormatVersion: "2010-09-09"
Resources:
  Bucket: {Type: "AWS::S3::Bucket"}
  Braking:
    Type: AWS::IoTFleetWise::Campaign
    Properties:
      Name: braking
      Action: SUSPEND
      TargetArn: !GetAtt Cars.Arn
      SignalCatalogArn: {Ref: Catalogue}
      DataDestinationConfigs: [{S3Config: {BucketArn: !Sub "${Bucket}"}}]
      StartTime: 2026-01-01T00:00:00Z
      CollectionScheme: {TimeBasedCollectionScheme: {PeriodMs: 10000}}
      SignalsToCollect:
        - {Name: Vehicle.Brakes.Pressure, MinimumSamplingIntervalMs: 100}
  Computed:
    Type: AWS::IoTFleetWise::Campaign
    Properties:
      Name: !Sub "${Stage}-campaign"
      CollectionScheme: {TimeBasedCollectionScheme: {PeriodMs: 10000}}
  Decoders:
    Type: AWS::IoTFleetWise::DecoderManifest
    Properties:
      Name: model-a
      ModelManifestArn: !Ref Model
      NetworkInterfaces:
        - {InterfaceId: "1", Type: CAN_INTERFACE, CanInterface: {Name: can1}}
      SignalDecoders:
        - FullyQualifiedName: Vehicle.Brakes.Pressure
          InterfaceId: "1"
          Type: CAN_SIGNAL
          CanSignal:
            {MessageId: "419", Name: P, StartBit: "8", Length: "16", Factor: "0.5", Offset: "-1", IsBigEndian: "true",
             IsSigned: "false"}
  Cars:
    Type: AWS::IoTFleetWise::Vehicle
    Properties:
      Name: car-1
      ModelManifestArn: !Ref Model
      DecoderManifestArn: !Ref Decoders
      Attributes: {Vehicle.Color: red}
  All: {Type: "AWS::IoTFleetWise::Fleet", Properties: {Id: all}}
"""


def test_a_template_of_cloudformation_in_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = imported(tmp_path, capsys, {"template.yaml": TEMPLATE})
    assert {name.partition(":")[2]: outcome(each) for name, each in found.items()} == {
        "Resources.Braking.Properties": ("difference", ["Action"]),
        "Resources.Computed.Properties": ("refused", ["Name"]),
        "Resources.Decoders.Properties": ("taken", []),
        "Resources.Cars.Properties": ("difference", [""]),
        "Resources.All.Properties": ("refused", [""]),
    }
    out = tmp_path / "out"
    written = parse_campaign((out / "campaigns" / "braking.json").read_bytes(), "braking.json")
    assert (written.suspended, written.start_ns) == (True, 1_767_225_600 * 10**9)
    assert [(rule.name, rule.interval_ns) for rule in written.rules] == [(PRESSURE, 100_000_000)]
    assert " SG_ Pressure : 7|16@0+ (0.5,-1) [0|0]" in (out / "dbc" / "can1" / "model-a.dbc").read_text()
    (car,) = json.loads((out / "vehicles.json").read_text())
    assert (car["vehicleName"], car["attributes"]) == ("car-1", {"Vehicle.Color": "red"})


def test_a_template_in_json_gives_the_same_as_one_in_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = (
        TEMPLATE.replace('!Sub "${Bucket}"', "{Ref: Bucket}")
        .replace("!GetAtt Cars.Arn", "{'Fn::GetAtt': [Cars, Arn]}")
        .replace("!Ref Model", "{Ref: Model}")
    )
    plain = (
        plain.replace("!Ref Decoders", "{Ref: Decoders}")
        .replace("!Sub ", "")
        .replace('"${Stage}-campaign"', "{Ref: S}")
    )
    content = yaml.safe_load(plain)
    content["Resources"]["Braking"]["Properties"]["StartTime"] = "2026-01-01T00:00:00Z"
    for name in ("yaml", "json"):
        (tmp_path / name).mkdir()
    first = imported(tmp_path / "yaml", capsys, {"template.yaml": TEMPLATE})
    second = imported(tmp_path / "json", capsys, {"template.json": content})
    assert [outcome(each) for each in first.values()] == [outcome(each) for each in second.values()]
    for folder in ("campaigns/braking.json", "dbc/can1/model-a.dbc", "vehicles.json"):
        files = [(tmp_path / name / "out" / folder).read_text() for name in ("yaml", "json")]
        assert files[0].replace("${Bucket}", "") == files[1].replace("${Bucket}", "")


def test_state_templates_catalogues_models_and_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = {"type": "sensor", "datatype": "uint16", "unit": "bar", "description": "pressure", "uuid": "x"}
    tree = {"Vehicle": {"type": "branch", "children": {"Brakes": {"type": "branch", "children": {"Pressure": leaf}}}}}
    vehicle = {
        "vehicleName": "car-1",
        "modelManifestArn": "arn:x:model-manifest/a",
        "decoderManifestArn": "arn:x:decoder-manifest/a",
        "stateTemplates": [
            {
                "identifier": "last-known",
                "stateTemplateUpdateStrategy": {
                    "periodic": {"stateTemplateUpdateRate": {"unit": "SECOND", "value": 5}}
                },
            }
        ],
    }
    found = imported(
        tmp_path,
        capsys,
        {
            "state.json": {"name": "last-known", "signalCatalogArn": "c", "stateTemplateProperties": [PRESSURE]},
            "other.json": {"name": "changes", "signalCatalogArn": "c", "stateTemplateProperties": [TORQUE]},
            "vehicle.json": {"vehicles": [vehicle]},
            "tree.json": tree,
            "import.json": {"name": "catalogue", "vss": {"vssJson": json.dumps(tree)}},
            "model.json": {"name": "model", "signalCatalogArn": "c", "nodes": [PRESSURE, TORQUE, "Vehicle.Brakes"]},
            "decoders.json": DECODERS[:2],
            "interfaces.json": [INTERFACE],
        },
    )
    assert {name: each["outcome"] for name, each in found.items()} == {
        "state.json": "difference",
        "other.json": "difference",
        "vehicle.json": "difference",
        "tree.json": "taken",
        "import.json": "taken",
        "model.json": "taken",
        "decoders.json": "taken",
        "interfaces.json": "taken",
    }
    out = tmp_path / "out"
    assert 'SG_ Pressure : 0|16@1+ (0.1,0) [0|0] "bar"' in (out / "dbc" / "can0" / "decoders.dbc").read_text()
    (periodic,) = parse_campaign((out / "campaigns" / "last-known.json").read_bytes(), "x").rules
    assert (periodic.name, periodic.interval_ns, periodic.on_change) == (PRESSURE, 5_000_000_000, False)
    (changes,) = parse_campaign((out / "campaigns" / "changes.json").read_bytes(), "x").rules
    assert (changes.name, changes.on_change) == (TORQUE, True)


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        ("{", "", "neither JSON nor YAML"),
        ('{"a": 1, "a": 2}', "", "occurs twice"),
        ("5", "", "neither an object nor a list"),
        ("[]", "", "no document of AWS IoT FleetWise"),
        ('{"hello": 1}', "", "no document of AWS IoT FleetWise"),
        ('{"campaignSummaries": []}', "campaignSummaries", "get-campaign"),
        ('{"networkFileDefinitions": []}', "networkFileDefinitions", "--database"),
        ('{"Resources": {"B": {"Type": "AWS::S3::Bucket"}}}', "", "no resource of AWS::IoTFleetWise"),
        ('{"collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 1}}}', "collectionScheme", ">= 10000"),
        ('{"name": "", "collectionScheme": {}}', "name", "length"),
        ('{"collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 10000}}, "prio": 1}', "", "prio"),
        ('{"nodes": [{"branch": {"fullyQualifiedName": "V"}, "sensor": {}}]}', "nodes[0]", ""),
        ('{"V": {"type": "twig"}}', "V", "branch, sensor, actuator"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, key: str, words: str
) -> None:
    found = imported(tmp_path, capsys, {"wrong.json": content, "right.json": DECODERS[:1]})
    wrong = next(each for name, each in found.items() if name.startswith("wrong.json"))
    assert wrong["outcome"] == "refused"
    (remark,) = wrong["remarks"]
    assert remark["key"].startswith(key)
    assert words in remark["text"]
    assert found["right.json"]["outcome"] == "difference"  # its interface is missing; all else is written
    assert (tmp_path / "out" / "dbc" / "1" / "decoders.dbc").exists()


def test_an_empty_skeleton_of_the_command_line_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skeleton = {
        "name": "",
        "signalCatalogArn": "",
        "targetArn": "",
        "signalsToCollect": [{"name": "", "maxSampleCount": 0}],
    }
    schemes = {"timeBasedCollectionScheme": {"periodMs": 0}, "conditionBasedCollectionScheme": {"expression": ""}}
    found = imported(tmp_path, capsys, {"skeleton.json": {**skeleton, "collectionScheme": schemes}})
    assert outcome(found["skeleton.json"])[0] == "refused"


def test_two_campaigns_of_one_name_are_not_mixed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = imported(
        tmp_path,
        capsys,
        {
            "a.json": campaign(HEARTBEAT, PRESSURE, name="one"),
            "b.json": campaign(HEARTBEAT, TORQUE, name="one"),
        },
    )
    assert outcome(found["a.json"]) == ("taken", [])
    assert outcome(found["b.json"]) == ("refused", ["name"])
    assert "a.json" in found["b.json"]["remarks"][0]["text"]


def test_a_folder_with_files_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(DECODERS))
    command = ["import", "fleetwise", str(tmp_path / "x.json"), "--out", str(tmp_path)]
    assert main(command) == 1
    assert "Give a new folder" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "new"), *command[3:3]]) == 0
    assert "report" in capsys.readouterr().out
    assert main(["import", "fleetwise", str(tmp_path / "missing.json"), "--out", str(tmp_path / "other")]) == 1
    assert "cannot be read" in capsys.readouterr().err
