"""Test the agent as a real process: signals, reloads, SIGKILL, the service manager and replayed logs."""

import fcntl
import json
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.formats.up.columns import Window
from agent.formats.up.decode import decode_window
from agent.formats.up.seal import read_header, unseal
from agent.pushes import trial
from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.store import Store
from agent.system.boot import BOOT_ID, boot_id
from fleet.state.keys import read_p256, read_recipient
from lab.vehicle import Agent, ask
from tests.agent.car import Car, campaign, command, drive, write_log
from tests.agent.expected import count_samples
from tests.integration.lake import in_lake, receiving, samples_in_lake

pytestmark = pytest.mark.integration


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def spooled(car: Car) -> list[Window]:
    """Return the windows in the spool, in order, opened with the fleet's key."""
    private = read_recipient(car.fleet)
    device = read_p256(car.identity / "device.key.pem").public_key()
    envelopes = [path.read_bytes() for path in (car.folder / "state" / "spool" / "batches").rglob("*.batch")]
    envelopes.sort(key=lambda envelope: read_header(envelope).seq)
    return [decode_window(unseal(envelope, private, device)[1]) for envelope in envelopes]


def events(car: Car, kind: str) -> list[dict[str, Any]]:
    return [dict(event.fields) for window in spooled(car) for event in window.events if event.kind == kind]


def frames(at_least: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: sum(status["telemetry"]["frames"].values()) >= at_least


# ---- SIGTERM, SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_stores_the_open_window_within_five_seconds(car: Car, number: signal.Signals) -> None:
    car.write(telemetry="increment_s = 60")  # so that no frame is decoded before the stop
    (car.campaigns / "everything.json").write_bytes(campaign(period_ms=3_600_000))
    with car.running() as agent:
        agent.until_status(frames(1_000), "capturing")
        assert not any(window.samples for window in spooled(car))
        started_s = time.monotonic()
        agent.signal(number)
        assert agent.wait() == 0
        assert time.monotonic() - started_s < 5
        (line,) = agent.lines("agent_stopped")
    assert line["uptime_s"] > 0
    (window,) = [window for window in spooled(car) if window.samples]
    assert window.campaign == "everything"
    assert window.samples > 1_000
    assert [len(events(car, kind)) for kind in ("agent_started", "agent_stopped")] == [1, 1]


# ---- SIGHUP


def test_changed_campaigns_are_exchanged_while_frames_come_in(car: Car) -> None:
    with car.running() as agent:
        before = agent.until_status(frames(500), "capturing")
        (car.campaigns / "more.json").write_bytes(campaign("more", signals="*Speed*"))
        agent.signal(signal.SIGHUP)
        after = agent.until_status(lambda s: len(s["telemetry"]["campaigns"]) == 2, "exchanged")
        assert sum(after["telemetry"]["frames"].values()) >= sum(before["telemetry"]["frames"].values())
        assert agent.said("agent_ready") == 1
        assert agent.stop() == 0
    first, second = events(car, "campaigns_in_force")
    assert (first["campaigns"].count("@"), second["campaigns"].count("@")) == (1, 2)
    assert "frames.can0" not in first
    assert int(second["frames.can0"]) > 0


def test_changed_settings_rebuild_the_parts_behind_the_same_spool(car: Car) -> None:
    with car.running() as agent:
        before = agent.until_status(lambda s: s["spool"]["waiting"] >= 2, "storing")
        car.write(telemetry="increment_s = 0.3", log='level = "debug"')
        agent.signal(signal.SIGHUP)
        agent.until(lambda: agent.said("agent_ready") == 2, "built anew")
        after = agent.until_status(frames(1), "capturing")
        assert after["spool"]["epoch"] == before["spool"]["epoch"]
        assert after["spool"]["next_seq"] > before["spool"]["next_seq"]
        assert after["uptime_s"] >= before["uptime_s"]  # of the process
        assert agent.stop() == 0


def test_a_new_certificate_in_the_identity_folder_is_taken_up(car: Car) -> None:
    with car.running() as agent:
        again = command("fleet", "enrol", "--fleet", car.fleet.root, "--out", car.folder / "again")
        assert again.returncode == 0
        shutil.rmtree(car.identity)
        (car.folder / "again").rename(car.identity)
        agent.signal(signal.SIGHUP)
        agent.until(lambda: agent.said("agent_ready") == 2, "built anew")
        before, after = (line["vehicle"] for line in agent.lines("agent_ready"))
        assert before != after


def broken_settings(car: Car) -> None:
    car.config.write_text(car.config.read_text() + "\nnonsense = 1\n")


def broken_campaign(car: Car) -> None:
    (car.campaigns / "broken.json").write_text("{")


def missing_log(car: Car) -> None:
    car.write(sources='[[sources]]\nkind = "replay"\nlog = "nowhere.log"')


def missing_key(car: Car) -> None:
    (car.identity / "device.key.pem").unlink()


def test_mistakes_change_nothing_and_each_is_one_message(car: Car) -> None:
    good = car.config.read_text()
    with car.running() as agent:
        before = agent.until_status(frames(100), "capturing")
        for number, mistake in enumerate((broken_settings, broken_campaign, missing_log, missing_key), 1):
            mistake(car)
            agent.signal(signal.SIGHUP)
            agent.until(lambda number=number: agent.said("reload_refused") == number, mistake.__name__)
            car.config.write_text(good)
            (car.campaigns / "broken.json").unlink(missing_ok=True)
        after = agent.until_status(frames(sum(before["telemetry"]["frames"].values()) + 100), "capturing on")
        assert (agent.said("reload_refused"), agent.said("agent_ready")) == (4, 1)
        assert after["telemetry"]["campaigns"] == before["telemetry"]["campaigns"]
        assert agent.stop() == 0
    reasons = [line["reason"] for line in agent.lines("reload_refused")]
    for word, reason in zip(("nonsense", "broken.json", "nowhere.log", "device.key.pem"), reasons, strict=True):
        assert word in reason


@contextmanager
def locked(spool: Path) -> Iterator[None]:
    """Hold the lock of a spool, as another agent would, for a `with` block."""
    spool.mkdir(parents=True, exist_ok=True)
    with (spool / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_reload_to_a_port_that_is_taken_ends_no_telemetry(car: Car) -> None:
    with car.running() as agent, socket.create_server(("127.0.0.1", 0)) as taken:
        car.write(serve_port=taken.getsockname()[1])
        agent.signal(signal.SIGHUP)
        agent.until(lambda: agent.said("agent_ready") == 2, "running again")
        (line,) = agent.lines("not_listening")
        assert f"holds the port 127.0.0.1:{car.serve_port}" in line["reason"]
        agent.until(lambda: frames(100)(json.loads(ask(car.socket, "GET", "/status"))), "capturing")
        assert agent.stop() == 0


def test_where_the_new_parts_cannot_be_built_the_old_ones_take_over_again(car: Car) -> None:
    with car.running() as agent, locked(car.folder / "other-state" / "spool"):
        car.write(state='folder = "other-state"\nruntime_folder = "run"')
        agent.signal(signal.SIGHUP)
        agent.until(lambda: agent.said("agent_ready") == 2, "running again")
        (line,) = agent.lines("reload_refused")
        assert "other-state/spool is in use by another process" in line["reason"]
        agent.until_status(frames(100), "capturing, and answering")
        assert agent.stop() == 0


# ---- SIGKILL


def test_after_sigkill_nothing_that_was_stored_is_lost_and_the_spool_goes_on(car: Car) -> None:
    with receiving(car):
        with car.running() as agent:  # the agent is killed at the end of the block
            agent.until_status(lambda s: s["spool"]["acknowledged"] >= 2, "delivering")
        dead = status_of(car)
        with car.running() as agent:
            done = agent.until_status(
                lambda s: s["spool"]["acknowledged"] >= dead["spool"]["next_seq"] + 2, "storing and delivering on"
            )
            assert done["spool"]["epoch"] == dead["spool"]["epoch"]
            assert agent.stop() == 0
    spool = done["spool"]
    assert spool["next_seq"] - 1 + spool["adopted"] == spool["acknowledged"] + spool["waiting"]
    assert spool["lost"] == {"open_window": {"batches": 0, "samples": 0, "frames": 0}}  # the record names the time only
    assert in_lake(car, "SELECT count(*) - count(DISTINCT (epoch, seq)) FROM batches") == 0


def status_of(car: Car) -> dict[str, Any]:
    """Return what `headunit-agent status` reports while no agent runs."""
    done = command("agent", "status", "--config", car.config, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["running"]
    spool = found["spool"]
    assert spool["next_seq"] - 1 == spool["acknowledged"] + spool["waiting"]
    return found


# ---- the service manager


def test_the_service_manager_hears_of_every_stage(car: Car) -> None:
    path = car.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        with car.running(environment=environment) as agent:
            assert until_heard(manager, "READY=1") == []
            until_heard(manager, "WATCHDOG=1")
            until_heard(manager, "WATCHDOG=1")
            agent.signal(signal.SIGHUP)
            until_heard(manager, "RELOADING=1")
            assert "STOPPING=1" not in until_heard(manager, "READY=1")
            car.write(telemetry="increment_s = 0.5")
            agent.signal(signal.SIGHUP)
            until_heard(manager, "RELOADING=1")
            assert "STOPPING=1" not in until_heard(manager, "READY=1")
            agent.signal(signal.SIGTERM)
            until_heard(manager, "STOPPING=1")
            assert agent.wait() == 0


def until_heard(manager: socket.socket, word: str) -> list[str]:
    """Wait for the message that begins with `word`, and return the first lines of the messages before it."""
    before: list[str] = []
    while (line := manager.recv(1_000).decode().splitlines()[0]) != word:
        before.append(line)
    return before


# ---- replay


def replaying(car: Car, log: Path, speed: str = "0") -> Agent:
    return car.start("replay", "--log", str(log), "--speed", speed)


def test_a_replay_ends_with_0_when_all_of_it_is_in_the_lake(car: Car, tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    write_log(log, 5.0)
    with receiving(car):
        assert replaying(car, log).wait() == 0
    assert samples_in_lake(car) == count_samples(drive(5.0))
    assert in_lake(car, "SELECT count(*) FROM events WHERE kind = 'agent_delivered'") == 0  # it stays in the spool
    assert len(events(car, "agent_delivered")) == 1
    # No query for the campaign of real drives finds the samples of a replay.
    assert in_lake(car, "SELECT string_agg(DISTINCT campaign, ',') FROM samples") == "replay:everything"


def test_a_replay_that_is_killed_goes_on_where_it_was_and_begins_anew_after_its_end(car: Car, tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    write_log(log, 6.0)
    for stored in (3, 6):
        agent = replaying(car, log, "3")
        agent.until_ready()
        agent.until_status(lambda s, least=stored: s["spool"]["next_seq"] > least, "stored")
        agent.kill()
    with receiving(car):
        assert replaying(car, log).wait() == 0
        assert samples_in_lake(car) == count_samples(drive(6.0))
        assert replaying(car, log).wait() == 0
        assert samples_in_lake(car) == 2 * count_samples(drive(6.0))


def test_a_replay_that_is_stopped_early_ends_with_1(car: Car, tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    write_log(log, 5.0)
    agent = replaying(car, log, "1")
    try:
        agent.until_ready()
        assert agent.stop() == 1
    finally:
        agent.kill()


def on_trial(car: Car) -> trial.Slots:
    return Store.open(car.folder / "state" / "pushes").record.slots


def put_on_trial(car: Car, boot: str) -> None:
    """Store a release on trial, as a crash leaves it."""
    store = Store.open(car.folder / "state" / "pushes")
    store.commit(Record(slots=trial.commit(trial.Slots(), store.add_release(Release(7, {})), boot)))


def test_only_crashes_count_against_a_release_on_trial(car: Car) -> None:
    put_on_trial(car, boot_id())
    with locked(car.state / "spool"):
        assert command("agent", "run", "--config", car.config).returncode == 1
    with car.running() as agent:
        assert on_trial(car).crashes == 1
        car.write(telemetry="increment_s = 0.3")
        agent.signal(signal.SIGHUP)
        agent.until(lambda: agent.said("agent_ready") == 2, "built anew")
        assert on_trial(car).crashes == 1
        assert agent.stop() == 0
    assert on_trial(car).open_in is None
    for crashes in (1, 2):
        with car.running():
            assert on_trial(car).crashes == crashes
    with car.running() as agent:
        assert agent.status()["pushes"]["version"] == 0
    assert on_trial(car) == trial.Slots(refused=7)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGABRT])  # a crash, and what the watchdog sends after a hang
@pytest.mark.attack(
    "7",
    "a release crashes or hangs the agent after its trial",
    how="A real agent is killed, or aborted as by the watchdog, again and again after the trial.",
    before="no way back after the trial",
    receipt="push_reverted",
)
def test_an_agent_that_crashes_after_the_trial_comes_back_with_the_release_before(
    car: Car, end: signal.Signals
) -> None:
    car.write(pushes="trial_s = 0.5")
    store = Store.open(car.folder / "state" / "pushes")
    old, new = (store.add_release(Release(version, {})) for version in (6, 7))
    store.commit(Record(slots=trial.commit(trial.Slots(current=old), new, boot_id())))
    with car.running() as agent:
        agent.until_status(lambda status: not status["pushes"]["in_trial"], "the trial has ended")
        for _ in range(trial.LATER_CRASHES - 1):
            assert agent.status()["pushes"]["version"] == 7
            agent.signal(end)
            agent.wait()
            agent.start()
            agent.until(lambda: agent.status_or_none() is not None, "serving")
        agent.signal(end)
        agent.wait()
        agent.start()
        agent.until(lambda: agent.status_or_none() is not None, "serving")
        assert agent.status()["pushes"]["version"] == 6
        assert agent.stop() == 0
    (receipt,) = events(car, "push_reverted")
    assert (receipt["version"], receipt["reason"]) == (7, "unhealthy")
    assert on_trial(car) == trial.Slots(current=old, refused=7)


@pytest.mark.attack(
    "12",
    "three power cuts soon after a start",
    how="A real agent is killed in three boots while a release is on trial.",
    before="a good release was refused",
)
def test_three_power_cuts_soon_after_a_start_do_not_refuse_a_good_release(car: Car) -> None:
    car.write(pushes="trial_s = 3")
    put_on_trial(car, "0")
    for boot in "123":
        with car.running(environment={BOOT_ID: boot}):  # The next boot has another id, as after a power cut.
            assert on_trial(car).power_cuts == int(boot)
    with car.running(environment={BOOT_ID: "4"}) as agent:
        agent.until_status(lambda status: not status["pushes"]["in_trial"], "the trial has ended")
        assert agent.status()["pushes"]["version"] == 7
    assert on_trial(car).refused == 0
