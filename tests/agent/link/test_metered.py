"""Test whether a link counts as metered, from output of NetworkManager's tool and with this machine's interfaces."""

import asyncio
from pathlib import Path

import pytest

from agent.link import metered
from agent.link.metered import is_metered, metered_of

LISTING = r"""GENERAL.METERED:no (guessed)
IP4.ADDRESS[1]:192.168.1.20/24
IP4.ADDRESS[2]:192.168.1.21/24
IP6.ADDRESS[1]:fe80\:\:1c2\:3ff\:fe04\:506/64

GENERAL.METERED:yes (guessed)
IP4.ADDRESS[1]:10.118.4.7/32
IP6.ADDRESS[1]:2001\:db8\:0\:1\:\:7/64

GENERAL.METERED:unknown
IP4.ADDRESS[1]:127.0.0.1/8

GENERAL.METERED:yes

GENERAL.METERED:no
IP4.ADDRESS[1]:10.0.0.1/8
"""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.168.1.20", False),
        ("192.168.1.21", False),
        ("fe80::1c2:3ff:fe04:506%wlan0", False),
        ("10.118.4.7", True),
        ("2001:db8:0:1::7", True),
        ("127.0.0.1", None),
        ("10.0.0.1", False),
        ("203.0.113.9", None),
        ("", None),
    ],
)
def test_the_device_with_the_connections_address_is_found(address: str, expected: bool | None) -> None:
    assert metered_of(LISTING, address) is expected


@pytest.mark.parametrize("listing", ["", "Error: NetworkManager is not running.", "GENERAL.METERED:\nIP4.ADDRESS[1]:x"])
def test_an_answer_that_says_nothing_is_nothing_known(listing: str) -> None:
    assert metered_of(listing, "192.168.1.20") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "203.0.113.9", ""])
def test_on_this_machine_nothing_is_known_of_loopback_and_of_foreign_addresses(address: str) -> None:
    assert asyncio.run(is_metered(address)) is None


@pytest.mark.parametrize(("content", "expected"), [("DEVTYPE=wwan\nINTERFACE=lo\n", True), ("INTERFACE=lo\n", None)])
def test_a_modem_is_metered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: bool | None
) -> None:
    (tmp_path / "lo").mkdir()
    (tmp_path / "lo" / "uevent").write_text(content)
    (tmp_path / "lo" / "type").write_text("772\n")
    monkeypatch.setattr(metered, "_INTERFACES", tmp_path)
    assert asyncio.run(is_metered("127.0.0.1")) is expected


def test_a_network_manager_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "nmcli"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(metered, "_PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(metered, "ASK_S", 0.1)

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        assert await is_metered("127.0.0.1") is None
        return loop.time() - before_s

    assert asyncio.run(timed()) < 5.0


def test_network_manager_is_asked_in_the_form_that_its_tool_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nmcli"
    tool.write_text(
        '#!/bin/sh\necho "$*" > "${0%/*}/asked"\nprintf "GENERAL.METERED:yes\\nIP4.ADDRESS[1]:127.0.0.1/8\\n"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr(metered, "_PATH", f"{tmp_path}:/usr/bin:/bin")
    assert asyncio.run(is_metered("127.0.0.1")) is True
    assert (tmp_path / "asked").read_text() == "-t -f GENERAL.METERED,IP4.ADDRESS,IP6.ADDRESS device show\n"
