"""Ask the system whether a connection runs over a metered network interface.

NetworkManager knows best, because users mark metered links there.  The program nmcli asks NetworkManager, and its
answers `yes` and `yes (guessed)` count as metered.

systemd-networkd and others keep no such mark.  If NetworkManager gives no answer, the kernel's kind of interface
decides: a modem (wwan, ppp) is metered, and for any other kind the answer is unknown.

The interface is found by the connection's local address, so default routes and their order do not matter.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import re
import shutil
import socket
import struct
from pathlib import Path
from typing import Final

ASK_S: Final = 2.0  # nmcli answers in 30 ms; a NetworkManager that hangs must not delay the uplink
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_FIELDS: Final = "GENERAL.METERED,IP4.ADDRESS,IP6.ADDRESS"
_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_ARPHRD_PPP: Final = "512"  # linux/if_arp.h
_INTERFACES: Final = Path("/sys/class/net")
_IPV6_ADDRESSES: Final = Path("/proc/self/net/if_inet6")


async def is_metered(address: str) -> bool | None:
    """Return whether the interface with the local IP `address` is metered, or None if that is unknown."""
    told = metered_of(await _ask_nmcli(), address)
    return told if told is not None else await asyncio.to_thread(_is_modem, address)


def metered_of(listing: str, address: str) -> bool | None:
    """Return whether the device with `address` is metered, or None if `listing` does not say.

    `listing` is the output of `nmcli -t -f GENERAL.METERED,IP4.ADDRESS,IP6.ADDRESS device show`.
    """
    metered: bool | None = None
    for line in listing.splitlines():
        name, _, value = line.partition(":")
        if name == "GENERAL.METERED":
            metered = {"yes": True, "no": False}.get(value.split(" ")[0])
        elif re.match(r"IP[46]\.ADDRESS\[", name) and _same(value.replace("\\", "").partition("/")[0], address):
            return metered
    return None


async def _ask_nmcli() -> str:
    tool = shutil.which("nmcli", path=_PATH)
    if tool is None:  # NetworkManager is not installed.
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            *(tool, "-t", "-f", _FIELDS, "device", "show"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except OSError:  # The system cannot start a process now.
        return ""
    try:
        async with asyncio.timeout(ASK_S):
            answer, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return answer.decode(errors="replace")


def _is_modem(address: str) -> bool | None:
    try:
        interface = _interface_of(address)
        if interface is None:
            return None
        if "DEVTYPE=wwan" in (_INTERFACES / interface / "uevent").read_text().splitlines():
            return True
        return True if (_INTERFACES / interface / "type").read_text().strip() == _ARPHRD_PPP else None
    except OSError:  # The interface has just gone away, or no file descriptor is free.
        return None


def _interface_of(address: str) -> str | None:
    """Return the name of the interface that has `address`, or None.  Raises OSError."""
    with contextlib.suppress(OSError):
        for line in _IPV6_ADDRESSES.read_text().splitlines():
            digits, *_, name = line.split()
            if _same(str(ipaddress.IPv6Address(int(digits, 16))), address):
                return name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            with contextlib.suppress(OSError):  # The interface has no IPv4 address.
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
                if _same(socket.inet_ntoa(answer[20:24]), address):
                    return name
    return None


def _same(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other.partition("%")[0])
    except ValueError:
        return False
