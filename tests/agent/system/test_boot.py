"""The boot id is the same for the service, which cannot read it, and for every other process."""

import pytest

from agent.system.boot import BOOT_ID, boot_id


def test_the_id_of_the_kernel_and_that_of_systemd_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BOOT_ID, raising=False)
    from_kernel = boot_id()
    assert len(from_kernel) == 32
    monkeypatch.setenv(BOOT_ID, from_kernel)  # systemd's %b has no hyphens
    assert boot_id() == from_kernel


def test_what_systemd_tells_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BOOT_ID, "0123")
    assert boot_id() == "0123"
