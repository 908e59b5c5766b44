"""Every mistake in the configuration file is one message with file, key and remedy."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Mistakes, Permanent
from agent.settings import sections, settings
from agent.settings.sections import Settings
from agent.settings.settings import parse

CONFIG = Path(__file__).parents[3] / "config" / "agent.toml"
MINIMAL = '[uplink]\nbroker = "broker.example.org:8883"\n'


def test_a_minimal_file_gets_the_documented_defaults() -> None:
    parsed = parse(MINIMAL, "agent.toml")
    assert parsed.uplink.address == ("broker.example.org", 8883)
    assert parsed.telemetry == sections.TelemetrySettings()


def test_ipv6_brokers_lose_their_brackets() -> None:
    assert parse('[uplink]\nbroker = "[::1]:8883"\n', "f").uplink.address == ("::1", 8883)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.toml: uplink: this key is missing"),
        ("x =", "f.toml: the file is not valid TOML"),
        ('[uplink]\nbroker = "nowhere"', "is not host:port"),
        ('[uplink]\nbroker = "here:99999"', r"is not host:port; .* from 1 to 65535"),
        ('[uplink]\nbroker = "here:0"', "is not host:port"),
        (MINIMAL + "in_flght = 3", "f.toml: uplink.in_flght: there is no such key; did you mean 'in_flight'?"),
        (MINIMAL + '[[sources]]\nkind = "virtual_vehicle"\nseed = -1', r"sources\[0\].seed: expected `int` >= 0"),
        (MINIMAL + "keepalive_s = 1", r"uplink.keepalive_s: expected `int` >= 5 \(given: 1\)"),
        (MINIMAL + "backoff_max_s = 0.5", r"uplink.backoff_max_s: expected `float` >= 1.0 \(given: 0.5\)"),
        (MINIMAL + "backoff_min_s = 0.2", "backoff_min_s: there is no such key; did you mean 'backoff_max_s'?"),
        (MINIMAL + "broker_profile = 'azure'", "broker_profile: 'azure' is not one of standard, azure_event_grid$"),
        (MINIMAL + "[spool]\nquota_mb = 0.05", r"spool.quota_mb: expected `float` >= 0.1 \(given: 0.05\)"),
        (MINIMAL + "[spool]\nquota_bytes = 256000000", "quota_bytes: there is no such key; did you mean 'quota_mb'?"),
        (MINIMAL + '[spool]\nquota_mb = "1 GB"', "spool.quota_mb: expected `float`, got `str`"),
        (MINIMAL + "[bus.can1]\ndbc = []", "bus.can1.dbc: expected `array` of length >= 1"),
        (MINIMAL + '[bus.can1]\ndbx = ["a"]', "bus.can1.dbx: there is no such key; did you mean 'dbc'?"),
        (
            MINIMAL + '[bus.can1]\ndbc = [{file = "a", encodin = "gbk"}]',
            r"bus.can1.dbc\[0\].encodin: there is no such key; did you mean 'encoding'?",
        ),
        (MINIMAL + '[bus.can1]\ndbc = [{encoding = "gbk"}]', r"bus.can1.dbc\[0\].file: this key is missing"),
        (MINIMAL + "[bus.can1]\ndbc = [7]", r"bus.can1.dbc\[0\]: expected "),
        (MINIMAL + '[bus.can1]\ndbc = ["a"]\nmatch = "id"', r"bus.can1.match: 'id' is not one of exact, pgn$"),
        (MINIMAL + "ack = 'lake'", "uplink.ack: 'lake' is not one of receiver, broker$"),
        (MINIMAL + "metered = 'yes'", "uplink.metered: 'yes' is not one of true, false, auto$"),
        (MINIMAL + "metered = 1", "uplink.metered: "),
        (MINIMAL + "metered_lanes = ['live']", "metered_lanes has live without events"),
        (MINIMAL + "metered_lanes = ['all']", r"uplink.metered_lanes\[0\]: 'all' is not one of events, live, backlog$"),
        (MINIMAL + "backlog_kbit_s = -1", "uplink.backlog_kbit_s: expected `int` >= 0"),
        (MINIMAL + "[serve]\nhost = '0.0.0.0'", r"serve.host: '0\.0\.0\.0' is not one of 127\.0\.0\.1, ::1$"),
        (
            MINIMAL + "[log]\nlevel = 'inof'",
            "log.level: 'inof' is not one of debug, info, warning, error; did you mean 'info'\\?$",
        ),
        (MINIMAL + "[log]\nlevel = 3", "log.level: expected `str`, got `int`"),
        (
            MINIMAL + '[[sources]]\nkind = "usb"',
            r"\[0\].kind: 'usb' is not one of replay, virtual_vehicle, python_can, packet_ring$",
        ),
        (MINIMAL + '[[sources]]\nkind = "socketcan"', "packet_ring; for a SocketCAN interface write packet_ring$"),
        (MINIMAL + '[[sources]]\nkind = "PCAN"', "packet_ring; write python_can, and this word as `interface`$"),
        (MINIMAL + '[[sources]]\nkind = "candump"', "packet_ring; for a recorded log write replay$"),
        (MINIMAL + '[[sources]]\nkind = "python-can"', "packet_ring; did you mean 'python_can'\\?$"),
        (MINIMAL + '[[sources]]\nkind = "replay"', r"sources\[0\].log: this key is missing"),
        (
            MINIMAL + ('[[sources]]\nkind = "python_can"\nbus = "can0"\ninterface = "virtual"\nchannel = "a"\n' * 2),
            "two sources feed bus 'can0'",
        ),
        (MINIMAL + "colour = 1", "uplink.colour: there is no such key; the known keys are ack"),
    ],
)
def test_a_mistake_is_one_message_with_file_key_and_remedy(text: str, message: str) -> None:
    with pytest.raises(Permanent, match=message) as caught:
        parse(text, "f.toml")
    assert "\n" not in str(caught.value).replace("at line", "")


SEVERAL = """
colour = "red"
sources = [{kind = "replay"}, {kind = "usb"}, {kind = "packet_ring", bus = "can0", interface = "a/b", ring_mb = 0}, 7]
[uplink]
broker = "nowhere"
[telemetry]
increment_s = -1.0
campains = "x"
[bus.can0]
match = "fuzzy"
[bus.can1]
dbc = []
[log]
level = "loud"
format = 3
[spool]
quota_mb = "much"
"""


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Mistakes) as caught:
        parse(SEVERAL, "f.toml")
    named = [message.split(": ")[1] for message in caught.value.each]
    assert named == [
        "colour",
        "uplink",
        "telemetry.increment_s",
        "telemetry.campains",
        "spool.quota_mb",
        "log.level",
        "log.format",
        "sources[0].log",
        "sources[1].kind",
        "sources[2].interface",
        "sources[2].ring_mb",
        "sources[3]",
        "bus.can0.match",
        "bus.can0.dbc",
        "bus.can1.dbc",
    ]
    assert all(message.startswith("f.toml: ") for message in caught.value.each)


def test_a_table_of_the_wrong_type_does_not_hide_the_others() -> None:
    with pytest.raises(Mistakes) as caught:
        parse('uplink = 3\nbus = "can0"\n[log]\nlevel = "loud"\n', "f.toml")
    assert [message.split(": ")[1] for message in caught.value.each] == ["uplink", "bus", "log.level"]


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_permanent(text: str) -> None:
    try:
        parse(text, "f")
    except Permanent:
        return


def test_the_shipped_file_parses_and_shows_only_defaults_where_commented() -> None:
    shipped = settings.load(CONFIG).settings
    assert shipped.telemetry == sections.TelemetrySettings()
    assert shipped.spool == sections.SpoolSettings()


def _documented(section: str) -> dict[str, str]:
    """Return the keys of a section of config/agent.toml, commented out or not, with their values as text."""
    text = CONFIG.read_text()
    start = text.index(f"\n[{section}]\n") + len(section) + 4
    body = re.split(r"^\[", text[start:], maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^(?:# )?([a-z_]+) = (.+?)(?:\s{2,}#.*)?$", body, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "section", [f.name for f in msgspec.structs.fields(Settings) if f.name not in {"sources", "bus"}]
)
def test_every_key_is_documented_with_its_true_default(section: str) -> None:
    kind = next(f.type for f in msgspec.structs.fields(Settings) if f.name == section)
    documented = _documented(section)
    assert set(documented) == set(kind.__struct_fields__)
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            shown = (
                parse(MINIMAL + f"[{section}]\n{field.name} = {documented[field.name]}", "f")
                if (section != "uplink")
                else parse(MINIMAL + f"{field.name} = {documented[field.name]}", "f")
            )
            assert getattr(getattr(shown, section), field.name) == field.default, field.name


@pytest.mark.parametrize(
    "kind",
    sections.SOURCE_KINDS,
)
def test_every_key_of_a_source_is_documented(kind: type[msgspec.Struct]) -> None:
    tag = kind.__struct_config__.tag
    block = CONFIG.read_text().split(f'kind = "{tag}"')[1].split("[[sources]]")[0]
    for name in kind.__struct_fields__:
        assert re.search(rf"^# {name} = ", block, flags=re.MULTILINE), name


def test_an_unreadable_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"none\.toml: the configuration cannot be read"):
        settings.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(Permanent, match=r"latin\.toml: the file is not UTF-8 at byte 5"):
        settings.load(tmp_path / "latin.toml")


def test_a_file_of_another_user_is_no_reason_to_name_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: str) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(Permanent) as caught:
        settings.load(tmp_path / "agent.toml")
    assert "Permission denied; run the command as root or as the agent's user (headunit-agent)" in str(caught.value)
    assert "--config" not in str(caught.value)


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(MINIMAL)
    loaded = settings.load(file)
    assert loaded.path("a/b.dbc") == tmp_path.resolve() / "a/b.dbc"
    assert loaded.path("/x") == Path("/x")
