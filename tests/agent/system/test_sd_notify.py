"""Test the sd_notify(3) protocol with a real datagram socket."""

import os
import socket
from pathlib import Path

from agent.system.sd_notify import Notifier


def test_states_reach_the_service_manager(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
        notifier.ready("capturing")
        assert manager.recv(100) == b"READY=1\nSTATUS=capturing"
        notifier.watchdog("12 batches waiting")
        assert manager.recv(100).startswith(b"WATCHDOG=1")
        notifier.reloading(5_000)
        assert manager.recv(100) == b"RELOADING=1\nMONOTONIC_USEC=5"
        notifier.stopping()
        assert manager.recv(100) == b"STOPPING=1"
    assert notifier.watchdog_interval_s == 15.0
    notifier.stopping()  # the manager is gone: no error


def test_an_abstract_socket_is_understood() -> None:
    name = f"@headunit-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:])
        manager.settimeout(5)
        Notifier({"NOTIFY_SOCKET": name}).stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_interval_s is None
    assert Notifier({}).watchdog_interval_s is None
