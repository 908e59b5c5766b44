"""Test the file that flagd's in-process providers watch."""

import json
import os
import time
from pathlib import Path

import pytest
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType

from agent.errors import Transient
from agent.serve.flagd_file import FlagdFile

DEFINITION = b'{"flags":{"f":{"state":"ENABLED","variants":{"on":true}}}}'


def test_the_file_holds_the_definition_in_force(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path)
    file.write(DEFINITION)
    assert file.path.read_bytes() == DEFINITION
    file.write(None)
    assert json.loads(file.path.read_bytes()) == {"flags": {}}
    assert list(tmp_path.iterdir()) == [file.path]


def test_a_runtime_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path / "missing")
    with pytest.raises(Transient, match="missing"):
        file.write(DEFINITION)
    file.remove()


def test_a_removed_file_is_written_anew(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path)
    file.write(DEFINITION)
    file.remove()
    assert not file.path.exists()
    file.write(DEFINITION)
    assert file.path.exists()


def definition(variant: str) -> bytes:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": variant}
    return json.dumps({"flags": {"f": flag}}).encode()


@pytest.mark.parametrize("removed", [False, True])
def test_a_reader_follows_a_change_after_the_clock_was_set_back(tmp_path: Path, removed: bool) -> None:
    file = FlagdFile(tmp_path)
    file.write(definition("on"))
    os.utime(file.path, (4_070_908_800, 4_070_908_800))  # in 2099
    provider = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(file.path), deadline_ms=20)
    api.set_provider_and_wait(provider, "reader")
    client = api.get_client("reader")
    try:
        assert client.get_boolean_value("f", False) is True
        if removed:
            file.write(definition("on"))  # the agent has started anew since
            file.remove()
        file.write(definition("off"))
        deadline_s = time.monotonic() + 20
        while client.get_boolean_details("f", True).value and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert client.get_boolean_details("f", True).variant == "off"
    finally:
        provider.shutdown()
