import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.campaign import DOCUMENT_BYTES, parse_campaign, refuse_costly_globs
from agent.formats.down.campaign_fields import NO_EFFECT
from agent.telemetry.collect.campaign import rules_of
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.compile import compile_plan
from can_dbc.database import load

ROOT = Path(__file__).parents[4]
S = 1_000_000_000

# This is an answer of GetCampaign (API 2021-06-17) for a time-based campaign.
FLEETWISE = {
    "name": "example-campaign",
    "arn": "arn:aws:iotfleetwise:us-east-1:123456789012:campaign/example-campaign",
    "description": "",
    "signalCatalogArn": "arn:aws:iotfleetwise:us-east-1:123456789012:signal-catalog/DefaultSignalCatalog",
    "targetArn": "arn:aws:iotfleetwise:us-east-1:123456789012:vehicle/example-vehicle",
    "status": "RUNNING",
    "startTime": 1752000000.5,
    "expiryTime": 253402214400.0,
    "postTriggerCollectionDuration": 0,
    "diagnosticsMode": "OFF",
    "spoolingMode": "TO_DISK",
    "compression": "SNAPPY",
    "priority": 2,
    "signalsToCollect": [
        {"name": "Vehicle.Speed", "maxSampleCount": 1000, "minimumSamplingIntervalMs": 500},
        {"name": "Vehicle.Cabin.Temperature"},
    ],
    "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 10000}},
    "dataExtraDimensions": [],
    "dataDestinationConfigs": [{"s3Config": {"bucketArn": "arn:aws:s3:::bucket", "dataFormat": "PARQUET"}}],
    "creationTime": 1752000000.0,
    "lastModificationTime": 1752000000.0,
}


def parse(**changes):
    document = {**FLEETWISE, **changes}
    return parse_campaign({key: value for key, value in document.items() if value is not None}, "drive.json")


def signals(*rules):
    return parse(signalsToCollect=list(rules))


def test_a_document_of_fleetwise_is_accepted_as_it_is():
    campaign = parse_campaign(json.dumps(FLEETWISE).encode(), "drive.json")
    assert (campaign.name, campaign.period_ms, campaign.priority) == ("example-campaign", 10_000, 2)
    assert campaign.start_ns == 1_752_000_000_500_000_000
    assert campaign.expiry_ns == 253_402_214_400 * S
    speed, temperature = campaign.rules
    assert (speed.interval_ns, speed.max_samples, speed.on_change) == (500_000_000, 1_000, False)
    assert (temperature.interval_ns, temperature.max_samples, temperature.on_change) == (0, None, False)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"signalsToFetch": [{"fullyQualifiedName": "Vehicle.DTC"}]}, "signalsToFetch"),
        ({"dataPartitions": [{"id": "default"}]}, "dataPartitions"),
        ({"dataExtraDimensions": ["Vehicle.Model"]}, "dataExtraDimensions"),
        ({"diagnosticsMode": "SEND_ACTIVE_DTCS"}, "diagnosticsMode"),
        (
            {"signalsToCollect": [{"name": "A.b", "dataPartitionId": "default"}]},
            r"signalsToCollect\[0\].dataPartitionId",
        ),
    ],
)
def test_what_would_change_the_collection_and_is_not_carried_out_is_refused_by_name(changes, names):
    with pytest.raises(Permanent, match=rf"^drive\.json: {names}.*: (remove|set|use)"):
        parse(**changes)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"name": "with space"}, "name: the name must be 1 to 100 letters without accents, digits"),
        ({"name": None}, "name"),
        ({"collectionScheme": {}}, "timeBasedCollectionScheme"),
        ({"collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 999}}}, "periodMs"),
        ({"collectionScheme": {"timeBasedCollectionScheme": {"periodMs": "10000"}}}, "periodMs"),
        ({"signalsToCollect": []}, "signalsToCollect"),
        ({"signalsToCollect": [{"name": ""}]}, r"signalsToCollect\[0\]\.name"),
        ({"signalsToCollect": [{"name": "A.b", "maxSampleCount": 0}]}, "maxSampleCount"),
        ({"signalsToCollect": [{"name": "A.b", "minimumSamplingIntervalMs": -1}]}, "minimumSamplingIntervalMs"),
        ({"signalsToCollect": [{"name": "A.b", "onChange": "yes"}]}, "onChange"),
        ({"signalsToCollect": [{"name": "A.b"}, {"name": "A.b", "onChange": True}]}, "'A.b' twice"),
        ({"priority": -1}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"startTime": "yesterday"}, "startTime: 'yesterday' is not an ISO 8601 time"),
        ({"startTime": "2026-07-01T00:00:00"}, "startTime: .* has no time zone; append Z"),
        ({"startTime": -1}, "startTime"),
        ({"expiryTime": 1752000000}, "expiryTime is not after startTime"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(changes, names):
    with pytest.raises(Permanent, match=rf"^drive\.json: .*{names}"):
        parse(**changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"expirytime": 2e9}, "unknown field 'expirytime'; did you mean 'expiryTime'"),
        ({"prioirty": 2}, "unknown field 'prioirty'; did you mean 'priority'"),
        ({"colour": "red"}, "unknown field 'colour'; the known fields are .*, collectionScheme, "),
        (
            {"collectionScheme": {"timeBased": {"periodMs": 10_000}}},
            "collectionScheme: unknown field 'timeBased'; the known fields are .*timeBasedCollectionScheme",
        ),
        (
            {"collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 10_000, "period_s": 10}}},
            "collectionScheme.timeBasedCollectionScheme: unknown field 'period_s'; did you mean 'periodMs'",
        ),
        (
            {"signalsToCollect": [{"name": "A.b"}, {"name": "A.c", "on_change": True}]},
            r"signalsToCollect\[1\]: unknown field 'on_change'; did you mean 'onChange'",
        ),
        (
            {"signalsToCollect": ["A.b", {"name": "A.c", "minimumSamplingInterval": 5}]},
            r"signalsToCollect\[1\]: unknown field .*; did you mean 'minimumSamplingIntervalMs'",
        ),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(changes, complaint):
    with pytest.raises(Permanent, match=rf"^drive\.json: {complaint}"):
        parse(**changes)


@pytest.mark.parametrize("field", sorted(NO_EFFECT))
def test_a_field_without_effect_changes_nothing_but_the_revision(field):
    with_it = parse(**{field: FLEETWISE.get(field, "any")})
    without = parse(**{field: None})
    names = ("name", "rules", "period_ms", "priority", "start_ns", "expiry_ns", "suspended")
    assert [getattr(with_it, name) for name in names] == [getattr(without, name) for name in names]


def test_a_field_that_is_given_twice_is_refused():
    document = json.dumps(FLEETWISE).replace('"priority": 2', '"priority": 2, "priority": 0').encode()
    with pytest.raises(Permanent, match=r"^drive\.json: key 'priority' occurs twice"):
        parse_campaign(document, "drive.json")


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(Permanent, match=r"^drive\.json: this is not JSON"):
        parse_campaign(json.dumps({**FLEETWISE, "description": "\ud800"}).encode(), "drive.json")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else(document):
    with pytest.raises(Permanent, match=r"^drive\.json: "):
        parse_campaign(document, "drive.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(FLEETWISE)), _JSON)
def test_any_value_in_any_field_is_accepted_or_refused_and_nothing_else(field, value):
    try:
        parse_campaign(json.dumps({**FLEETWISE, field: value}).encode(), "drive.json")
    except Permanent as error:
        assert str(error).startswith("drive.json: ")


@pytest.mark.parametrize("document", [b"[]", b"null", b"[" * 100_000, b" " * (DOCUMENT_BYTES + 1), b'{"name": NaN}'])
def test_a_document_that_is_no_object_of_reasonable_size_is_refused(document):
    with pytest.raises(Permanent, match=r"^drive\.json: "):
        parse_campaign(document, "drive.json")


@pytest.mark.parametrize("time", [1_782_864_000, 1_782_864_000.0, "2026-07-01T00:00:00Z", "2026-07-01T02:00:00+02:00"])
def test_times_are_seconds_or_iso_8601(time):
    assert parse(startTime=time).start_ns == 1_782_864_000 * S


def conditional(expression="$variable.`Engine.Speed` > 5", more=None, **fields):
    scheme = {"conditionBasedCollectionScheme": {"expression": expression, **(more or {})}}
    return parse(**{"collectionScheme": scheme, **fields})


def test_a_condition_based_campaign_has_the_defaults_of_fleetwise():
    campaign = conditional()
    condition = campaign.condition
    assert (campaign.period_ms, condition.rising_edge, condition.interval_ns, condition.post_trigger_ns) == (
        0,
        False,
        0,
        0,
    )
    assert [rule.max_samples for rule in campaign.rules] == [1_000, 1_000]


def test_a_condition_based_campaign_takes_its_fields():
    more = {"triggerMode": "RISING_EDGE", "minimumTriggerIntervalMs": 2**32 - 1, "conditionLanguageVersion": 1}
    signals_ = [{"name": "A.b", "maxSampleCount": 7}, {"name": "A.c"}]
    campaign = conditional(more=more, postTriggerCollectionDuration=1_500, signalsToCollect=signals_)
    condition = campaign.condition
    assert (condition.rising_edge, condition.interval_ns) == (True, (2**32 - 1) * 1_000_000)
    assert condition.post_trigger_ns == 1_500_000_000
    assert [rule.max_samples for rule in campaign.rules] == [7, 1_000]


@pytest.mark.parametrize("signals_", [None, []])
def test_a_condition_based_campaign_may_collect_triggers_alone(signals_):
    assert conditional(signalsToCollect=signals_).rules == ()


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: conditional(""), "conditionBasedCollectionScheme.expression, character 1: .* 1 to 2,048 characters"),
        (lambda: conditional(" " * 2_049), "conditionBasedCollectionScheme.expression, character 2049: .* has 2,049"),
        (lambda: conditional("true &"), "collectionScheme.conditionBasedCollectionScheme.expression, character 6: '&'"),
        (lambda: conditional(more={"triggerMode": "FALLING_EDGE"}), "triggerMode: 'FALLING_EDGE' is neither"),
        (lambda: conditional(more={"triggerMode": 1}), "conditionBasedCollectionScheme.triggerMode: expected `str`"),
        (lambda: conditional(more={"minimumTriggerIntervalMs": 2**32}), "minimumTriggerIntervalMs: expected `int` <="),
        (lambda: conditional(more={"minimumTriggerIntervalMs": -1}), "minimumTriggerIntervalMs: expected `int` >= 0"),
        (lambda: conditional(more={"conditionLanguageVersion": 2}), "conditionLanguageVersion: 2 is not supported"),
        (lambda: conditional(more={"conditionLanguage": 1}), "unknown field 'conditionLanguage'; did you mean"),
        (lambda: conditional(postTriggerCollectionDuration=-1), "postTriggerCollectionDuration: expected `int` >= 0"),
        (lambda: conditional(postTriggerCollectionDuration="1"), "postTriggerCollectionDuration: expected `int`, got"),
        (
            lambda: parse(
                collectionScheme={
                    "timeBasedCollectionScheme": {"periodMs": 10_000},
                    "conditionBasedCollectionScheme": {"expression": "true"},
                }
            ),
            "collectionScheme has both",
        ),
    ],
)
def test_a_wrong_field_of_a_condition_is_named_with_its_file(made, complaint):
    with pytest.raises(Permanent, match=rf"^drive\.json: .*{complaint}"):
        made()


def test_a_campaign_lasts_from_its_start_to_its_expiry():
    campaign = parse(startTime=100, expiryTime=200)
    assert (campaign.start_ns, campaign.expiry_ns, campaign.suspended) == (100 * S, 200 * S, False)
    always = parse(startTime=None, expiryTime=None)
    assert (always.start_ns <= 0, always.expiry_ns, always.suspended) == (True, 253_402_214_400 * S, False)


def globs(count, stars):
    return signals(*({"name": f"{'*e' * stars}{number}"} for number in range(count)))


@pytest.mark.parametrize(
    ("count", "stars", "campaigns", "allowed"),
    [(1_000, 1, 1, True), (999, 2, 1, False), (500, 1, 2, True), (500, 1, 3, False), (20, 40, 2, True)],
)
def test_the_globs_of_a_release_are_bounded_by_what_they_cost(count, stars, campaigns, allowed):
    release = [(f"{number}.json", globs(count, stars)) for number in range(campaigns)]
    if allowed:
        refuse_costly_globs(release)
        return
    with pytest.raises(Permanent, match=rf"^{campaigns - 1}\.json: the globs of all campaigns .* 2,000 are allowed"):
        refuse_costly_globs(release)


def test_exact_names_cost_nothing():
    exact = signals(*({"name": f"Message.Signal{number}"} for number in range(1_000)))
    refuse_costly_globs([(str(number), exact) for number in range(10)])


@pytest.mark.parametrize("status", ["SUSPENDED", "WAITING_FOR_APPROVAL", "CREATING"])
def test_a_campaign_that_is_not_running_is_suspended(status):
    assert parse(status=status).suspended


def test_the_revision_names_the_content_whatever_its_order_and_spacing():
    one = parse_campaign(json.dumps(FLEETWISE).encode(), "a")
    other = parse_campaign(json.dumps(dict(reversed(FLEETWISE.items())), indent=3).encode(), "b")
    assert one.revision == other.revision == "b27b1550d359"
    assert parse(priority=3).revision != one.revision


@pytest.mark.parametrize("file", sorted((ROOT / "config/campaigns").glob("*.json")), ids=lambda file: file.stem)
def test_each_sample_campaign_is_valid_and_every_rule_finds_signals_of_the_demonstration_vehicle(file):
    campaign = parse_campaign(file.read_bytes(), str(file))
    assert campaign.name == file.stem
    plans = {path.stem: compile_plan([load(path)]) for path in (ROOT / "can_dbc/dbc").glob("*.dbc")}
    names = SignalTables(tuple(plans), plans).names
    assert set(rules_of(campaign, names).values()) == set(campaign.rules)
