"""The fleet can set the keys that are marked as remote, and no other key."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Mistakes, Permanent
from agent.settings import sections
from agent.settings.remote import laid_over, parse_remote
from agent.settings.sections import SECTIONS, remote_keys
from agent.settings.settings import parse

CONFIG = Path(__file__).parents[3] / "config" / "agent.toml"
LOCAL = parse(
    '[uplink]\nbroker = "b:1"\nin_flight = 3\n[bus.can0]\ndbc = ["own.dbc"]\n[spool]\nquota_mb = 1000.0', "agent.toml"
)
NEVER = (
    *("sources", "identity.folder", "state.folder", "state.runtime_folder", "serve.host", "serve.port"),
    *("pushes.trial_s", "telemetry.campaigns", "uplink.broker", "uplink.broker_profile", "uplink.ack", "log.format"),
)


def test_the_remote_keys_are_rates_limits_link_policy_log_level_and_drain() -> None:
    assert set(remote_keys()) == {
        *("uplink.in_flight", "uplink.ack_timeout_s", "uplink.keepalive_s", "uplink.backoff_max_s"),
        *("uplink.backlog_kbit_s", "uplink.metered", "uplink.metered_lanes", "uplink.metered_daily_mb"),
        *("telemetry.increment_s", "telemetry.checkpoint_s", "telemetry.rings_mb"),
        *("spool.quota_mb", "spool.max_age_s", "spool.reserve_mb", "log.level"),
    }


def test_config_agent_toml_marks_the_remote_keys_and_no_other() -> None:
    marked, section = set(), ""
    for line in CONFIG.read_text().splitlines():
        table = re.fullmatch(r"\[([a-z]+)\]", line)
        section = table[1] if table else section
        if found := re.match(r"(?:# )?([a-z_]+) = .*# (?:\(remote\) )", line):
            marked.add(f"{section}.{found[1]}")
    assert marked == set(remote_keys())


@pytest.mark.parametrize("key", NEVER)
def test_a_document_that_sets_a_key_of_the_vehicle_alone_is_refused_with_the_key(key: str) -> None:
    section, _, name = key.partition(".")
    text = "[[sources]]\nkind = 'replay'" if section == "sources" else f"[{section}]\n{name} = 'x'"
    with pytest.raises(Permanent, match=rf"^settings\.toml: {re.escape(key)}: the fleet cannot set this; only"):
        parse_remote(text.encode(), "settings.toml")


def test_every_key_is_either_taken_or_refused_by_its_mark() -> None:
    for section, kind in SECTIONS.items():
        for key in kind.__struct_fields__:
            value = getattr(getattr(LOCAL, section), key)
            text = f"[{section}]\n{key} = {_toml(value)}".encode()
            if f"{section}.{key}" in remote_keys():
                assert parse_remote(text, "s").values == {section: {key: value}}
            else:
                with pytest.raises(Permanent, match=re.escape(f"{section}.{key}: the fleet cannot set this")):
                    parse_remote(text, "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the document sets no key; the fleet can set uplink.in_flight, "),
        ("x =", "this is not TOML in UTF-8"),
        ("x = " + "[" * 30_000, "this is not TOML in UTF-8"),
        ("[uplink]\nin_flght = 3", "uplink.in_flght: there is no such key; did you mean 'in_flight'?"),
        ("[uplink]\nin_flight = 0", r"uplink.in_flight: expected `int` >= 1 \(given: 0\)"),
        ("[uplink]\nmetered_lanes = ['live']", 'metered_lanes has live without events, .* add "events"'),
        ("[spool]\nquota_mb = nan", "spool.quota_mb: nan is not a number that a limit can have"),
        ("[log]\nlevel = 'loud'", "log.level: 'loud' is not one of debug, info, warning, error"),
        ("name = '../x'\n[log]\nlevel = 'info'", "name: '../x' must have 1 to 60 letters"),
        ("[bus.can0]\ndbc = ['../x.dbc']", "bus.can0.dbc: '../x.dbc' is not the name of a pushed database"),
        ("[bus.can0]\ndbc = ['x.arxml']", "bus.can0.dbc: 'x.arxml' is not the name of a pushed database"),
        ("[bus.can0]\ndbc = ['x.dbc', 'x.dbc']", "bus.can0.dbc names x.dbc twice"),
        ("[bus.'can 0']\ndbc = ['x.dbc']", "bus.can 0: the name of a bus with pushed databases"),
        ("[bus.can0]\nmatch = 'pgn'", "bus.can0.dbc: this key is missing"),
    ],
)
def test_a_mistake_is_one_message_with_document_key_and_remedy(text: str, message: str) -> None:
    with pytest.raises(Permanent, match=f"^settings.toml: .*{message}"):
        parse_remote(text.encode(), "settings.toml")


def test_all_mistakes_of_a_document_are_named_together() -> None:
    with pytest.raises(Mistakes) as found:
        parse_remote(b"[uplink]\nbroker = 'x:1'\nack = 'broker'\n[state]\nfolder = 'x'", "s")
    assert len(found.value.each) == 3


def test_a_document_replaces_only_the_values_of_its_keys() -> None:
    pushed = parse_remote(b"[uplink]\nbacklog_kbit_s = 5\n[log]\nlevel = 'debug'", "a")
    more = parse_remote(b"name = 'more'\n[spool]\nquota_mb = 7.5\n[bus.can0]\ndbc = ['x.dbc']", "b")
    found = laid_over(LOCAL, [pushed, more])
    assert (found.uplink.backlog_kbit_s, found.uplink.in_flight, found.uplink.broker) == (5, 3, "b:1")
    assert (found.spool.quota_mb, found.log.level, found.bus) == (7.5, "debug", LOCAL.bus)
    assert more.keys == ("spool.quota_mb", "bus.can0")
    assert laid_over(LOCAL, []) == LOCAL


_VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from(("auto", "info", "x", "b:1")), st.lists(st.just("live"))
)
_KEYS = sorted({key for kind in SECTIONS.values() for key in kind.__struct_fields__} | {"nonsense"})


@given(st.dictionaries(st.sampled_from((*SECTIONS, "sources")), st.dictionaries(st.sampled_from(_KEYS), _VALUES)))
def test_whatever_a_document_says_only_remote_keys_change(document: dict[str, dict[str, Any]]) -> None:
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for section, table in document.items()
    )
    assert tomllib.loads(text).keys() == document.keys()
    try:
        found = laid_over(LOCAL, [parse_remote(text.encode(), "s")])
    except Permanent:
        return
    for section, kind in SECTIONS.items():
        for key in kind.__struct_fields__:
            value, own = (getattr(getattr(each, section), key) for each in (found, LOCAL))
            assert value == own or f"{section}.{key}" in remote_keys()
    assert (found.sources, found.bus) == (LOCAL.sources, LOCAL.bus)
    # The result is a configuration that the vehicle's own file could have as well.
    parse("".join(_table(name, getattr(found, name)) for name in SECTIONS), "agent.toml")


def _table(name: str, table: sections.Section) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {_toml(getattr(table, key))}\n" for key in table.__struct_fields__)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"'{value}'" if isinstance(value, str) else repr(value)
