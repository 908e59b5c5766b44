"""Test descriptors that outlive their process, with a real notification socket in place of systemd."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.system.descriptors import Descriptors, inherited
from agent.system.sd_notify import Notifier

SHOW = (
    "import os; from agent.system.descriptors import inherited; found = inherited(); "
    "print(sorted((name, os.read(fd, 9)) for name, fd in found.items()), "
    "[os.get_inheritable(fd) for fd in found.values()], sorted(k for k in os.environ if k.startswith('LISTEN')))"
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_what_is_kept_goes_to_the_service_manager_too(manager: socket.socket, tmp_path: Path) -> None:
    descriptors = Descriptors(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}), {})
    reading, writing = os.pipe()
    os.write(writing, b"frames")
    descriptors.keep("ring", reading)
    message, passed, _, _ = socket.recv_fds(manager, 200, 2)
    assert message == b"FDSTORE=1\nFDNAME=ring\nFDPOLL=0"
    os.close(reading)
    (at_manager,) = passed
    taken = descriptors.take("ring")
    assert taken is not None
    assert os.read(taken, 3) == b"fra"
    assert os.read(at_manager, 9) == b"mes"
    assert descriptors.names() == ("ring",)
    descriptors.drop("ring")
    assert manager.recv(200) == b"FDSTOREREMOVE=1\nFDNAME=ring"
    assert descriptors.take("ring") is None
    assert descriptors.names() == ()
    for descriptor in (taken, at_manager, writing):
        os.close(descriptor)


def test_the_next_process_finds_what_it_was_passed_by_name() -> None:
    pipes = [os.pipe() for _ in range(3)]
    for number, (_, writing) in enumerate(pipes):
        os.write(writing, b"%d" % number)
    script = " ".join(f"{3 + n}<&{reading}" for n, (reading, _) in enumerate(pipes))
    shell = f"exec {script}; LISTEN_PID=$$ exec {sys.executable} -c '{SHOW.replace(chr(39), chr(34))}'"
    done = subprocess.run(
        ["bash", "-c", shell],
        pass_fds=[reading for reading, _ in pipes],
        env={**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:ring-1:ring-2"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "[('a', b'0'), ('ring-1', b'1'), ('ring-2', b'2')] [False, False, False] []"
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}]
)
def test_what_was_meant_for_another_process_is_left_alone(environment: dict[str, str]) -> None:
    assert inherited(environment) == {}
    assert environment == {}
