"""Test how much a process has used, and how many connections it may have."""

import os
import resource
import subprocess
import sys

import pytest

from agent.errors import Permanent
from lab.simulate.processes import allow_connections, usage_of


def test_cpu_and_memory_of_a_process_are_those_of_the_kernel() -> None:
    used = usage_of(os.getpid())
    assert used.cpu_s == pytest.approx(sum(os.times()[:2]), abs=0.1)
    assert 5e6 < used.resident_bytes < 4e9


def test_a_process_that_is_gone_is_named() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(Permanent, match=f"process {process.pid} of the simulation has ended"):
        usage_of(process.pid)


def test_too_many_vehicles_for_the_systems_limit_is_said_with_the_remedy() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system has no limit")
    with pytest.raises(Permanent, match="ulimit -Hn"):
        allow_connections(hard)
