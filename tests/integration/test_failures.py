"""Each failure in the field gives one clear message and the right exit status, and the agent goes on if it can."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.__main__ import main
from fleet.admin.enrol import Model, enrol
from lab.mosquitto import Broker, free_port
from lab.receiver import Receiver
from lab.vehicle import delivered
from tests.agent.car import DATABASES, ROOT, Car, campaign, command, drive, vehicle, write_log
from tests.agent.expected import count_samples
from tests.integration.lake import in_lake, receiving, samples_in_lake
from tests.small_disk import NoDisk, SmallDisk, small_disk

pytestmark = pytest.mark.integration


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def not_toml(car: Car) -> None:
    car.config.write_text("[uplink\n")


def unknown_key(car: Car) -> None:
    replace(car.config, "ack_timeout_s", "ack_timeout")


def out_of_range(car: Car) -> None:
    replace(car.config, "increment_s = 0.2", "increment_s = 0")


def no_configuration(car: Car) -> None:
    car.config.unlink()


def no_identity(car: Car) -> None:
    shutil.rmtree(car.identity)


def missing_key(car: Car) -> None:
    (car.identity / "device.key.pem").unlink()


def damaged_fleet_key(car: Car) -> None:
    (car.identity / "hpke.pub.json").write_text("{}")


def key_of_another(car: Car) -> None:
    enrol(car.fleet, car.folder / "other", Model("Aria", "One", "EU", 2026), days=2, now=datetime.now(UTC))
    shutil.copy(car.folder / "other" / "device.key.pem", car.identity)


def unusable_root(car: Car) -> None:
    (car.identity / "root.json").write_text("{}")


def no_database(car: Car) -> None:
    replace(car.config, "demo_body.dbc", "demo_boddy.dbc")


def broken_database(car: Car) -> None:
    broken = car.folder / "broken.dbc"
    broken.write_text("an empty page\n")
    replace(car.config, 'dbc = ["', f'dbc = ["{broken}", "')


def no_log(car: Car) -> None:
    car.write(sources='[[sources]]\nkind = "replay"\nlog = "drive.log"')


def damaged_log(car: Car) -> None:
    (car.folder / "drive.log").write_bytes(b"\0\1\2 this is no log\n" * 50)
    no_log(car)


def damaged_archive(car: Car) -> None:
    (car.folder / "drive.log.zst").write_bytes(b"\0\1\2 this is no archive\n" * 50)
    car.write(sources='[[sources]]\nkind = "replay"\nlog = "drive.log.zst"')


def broken_campaign(car: Car) -> None:
    (car.campaigns / "everything.json").write_text('{"name": "everything"')


def campaigns_of_one_name(car: Car) -> None:
    (car.campaigns / "again.json").write_bytes(campaign())


def state_is_a_file(car: Car) -> None:
    (car.folder / "state").write_text("")


# Each mistake, and the words that its message must have: the file or key, and the fault or the remedy.
MISTAKES: list[tuple[Callable[[Car], None], tuple[str, ...]]] = [
    (not_toml, ("agent.toml", "TOML", "line 1")),
    (unknown_key, ("agent.toml", "uplink.ack_timeout", "did you mean 'ack_timeout_s'")),
    (out_of_range, ("agent.toml", "telemetry.increment_s", ">= 0.1")),
    (no_configuration, ("agent.toml", "cannot be read", "--config")),
    (no_identity, ("identity", "fleet enrol")),
    (missing_key, ("device.key.pem", "No such file", "fleet enrol")),
    (damaged_fleet_key, ("hpke.pub.json",)),
    (key_of_another, ("device.key.pem", "not the key of", "copy all files in the folder")),
    (unusable_root, ("root.json", "enrol")),
    (no_database, ("agent.toml", "bus.can1.dbc", "demo_boddy.dbc")),
    (broken_database, ("agent.toml", "bus.can0.dbc", "broken.dbc", "line 1")),
    (no_log, ("drive.log", "No such file")),
    (damaged_log, ("drive.log", "line 1")),
    (damaged_archive, ("drive.log.zst",)),
    (broken_campaign, ("everything.json", "JSON")),
    (campaigns_of_one_name, ("everything.json", "again.json", "rename")),
    (state_is_a_file, ("agent.toml", "state.folder")),
]


def names_it(status: int, errors: str, words: tuple[str, ...]) -> None:
    assert status == 1, errors
    assert len(errors.splitlines()) == 1, errors
    for word in words:
        assert word in errors, (word, errors)


def one_message(done: subprocess.CompletedProcess[str], words: tuple[str, ...]) -> None:
    names_it(done.returncode, done.stderr, words)


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_one_line_that_names_it_for_check_and_run(
    car: Car, capsys: pytest.CaptureFixture[str], mistake: Callable[[Car], None], words: tuple[str, ...]
) -> None:
    mistake(car)
    for verb in ("check", "run"):
        status = main([verb, "--config", str(car.config)])
        names_it(status, capsys.readouterr().err, words)


@pytest.mark.parametrize(("mistake", "words"), [MISTAKES[5], MISTAKES[12]])
def test_so_it_is_for_the_program_itself(car: Car, mistake: Callable[[Car], None], words: tuple[str, ...]) -> None:
    mistake(car)
    ran = command("agent", "run", "--config", car.config)
    one_message(ran, words)
    assert ran.stdout == ""


@pytest.mark.parametrize("content", [None, b"\0\1\2 this is no log\n" * 50])
def test_an_unreadable_log_is_one_line_for_decode_and_replay(
    car: Car, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    log = car.folder / "drive.log"
    if content is not None:
        log.write_bytes(content)
    options = {"decode": ("--dbc", DATABASES / "demo_body.dbc"), "replay": ("--config", car.config)}
    for verb, more in options.items():
        status = main([verb, "--log", str(log), *map(str, more)])
        names_it(status, capsys.readouterr().err, ("drive.log",))


def test_a_wrong_database_of_decode_is_one_line(car: Car) -> None:
    write_log(car.folder / "drive.log", 0.1)
    broken_database(car)
    done = command("agent", "decode", "--log", car.folder / "drive.log", "--dbc", car.folder / "broken.dbc")
    one_message(done, ("broken.dbc", "line 1"))


@pytest.mark.parametrize(
    "arguments",
    [(), ("drive",), ("run", "--port", "1"), ("replay",), ("decode", "--log", "x"), ("replay", "--speed", "fast")],
)
def test_wrong_use_has_status_2(arguments: tuple[str, ...]) -> None:
    done = command("agent", *arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_impossible_speed_is_wrong_use(car: Car) -> None:
    done = command("agent", "replay", "--config", car.config, "--log", "x.log", "--speed", "-1")
    assert done.returncode == 2
    assert "argument --speed: '-1' is not a number that is 0 or greater" in done.stderr


# ---- the running agent


def test_an_unreachable_broker_is_named_once_and_everything_is_kept(car: Car) -> None:
    with car.running() as agent:
        agent.until(lambda: agent.said("link_failed"), "told")
        agent.until_status(lambda s: s["spool"]["waiting"] >= 3, "stored")
        (line,) = agent.lines("link_failed")  # although the agent retries every second
        assert f"localhost:{car.broker_port}" in line["reason"]
        assert "check that the broker is running" in line["reason"]
        assert agent.status()["link"]["problem"] == line["reason"]
        assert agent.stop() == 0


def test_an_expired_certificate_is_named_and_capturing_goes_on(car: Car) -> None:
    shutil.rmtree(car.identity)
    ten_days_ago = datetime.now(UTC) - timedelta(days=10)
    enrol(car.fleet, car.identity, Model("Aria", "One", "EU", 2026), days=2, now=ten_days_ago)
    words = ("device.crt.pem", "certificate expired on", "enrol again")
    one_message(command("agent", "check", "--config", car.config), words)
    with Broker(car.fleet, car.folder / "broker", port=car.broker_port), car.running() as agent:
        agent.until(lambda: agent.said("link_failed"), "told")
        agent.until_status(lambda s: s["spool"]["waiting"] >= 2, "stored")
        (line,) = agent.lines("link_failed")
        assert line["level"] == "error"
        assert all(word in line["reason"] for word in words)
        assert agent.stop() == 0


def test_a_second_agent_on_the_same_spool_is_one_message(car: Car) -> None:
    with car.running():
        one_message(command("agent", "run", "--config", car.config), ("state/spool", "in use by another process"))


def test_fleet_publish_without_its_broker_is_one_message(car: Car) -> None:
    broker = f"localhost:{free_port()}"
    toggles = ROOT / "config" / "toggles.json"
    done = command("fleet", "publish", "--fleet", car.fleet.root, "--toggles", toggles, "--broker", broker)
    one_message(done, (broker,))


def test_fleet_receive_names_an_unreachable_broker_once_and_waits(car: Car) -> None:
    broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, car.folder / "receiver.log")
    receiver.start()
    try:
        with broker:
            broker.stop()
            receiver.until(lambda: "broker_" in receiver.output(), "told")
            broker.start()
            receiver.until(lambda: "broker_connected" in receiver.output(), "told")
    finally:
        assert receiver.stop() == 0
    assert receiver.output().count("broker_unreachable") <= 1


# ---- full disks


@contextmanager
def disk_at(folder: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(folder) as disk:
            yield disk
    except NoDisk as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("pending_max_bytes", [8_000_000, 20_000])
def test_with_a_full_disk_the_agent_captures_on_and_accounts_for_every_sample(car: Car, pending_max_bytes: int) -> None:
    drive_s = 40.0
    car.write(
        sources=vehicle(drive_s, speed=10.0),
        telemetry="increment_s = 1",
    )
    car.limits = {"window_max_samples": 1_000, "pending_max_bytes": pending_max_bytes}
    with disk_at(car.folder / "state") as disk, receiving(car), car.running() as agent:
        agent.until_status(lambda s: s["spool"]["next_seq"] > 3, "stored")
        disk.fill()
        agent.until(lambda: agent.said("disk_refuses"), "told")
        full = agent.until_status(lambda s: s["telemetry"]["problem"], "refused")
        assert "free some space" in full["telemetry"]["problem"]
        more = full["telemetry"]["frames"]["can0"]
        agent.until_status(lambda s: s["telemetry"]["frames"]["can0"] > more + 3_000, "capturing")
        disk.free()
        agent.until(lambda: agent.said("disk_accepts_again"), "accepting")
        done = agent.until_status(
            delivered,
            "delivered",
        )
        assert agent.stop() == 0
        assert agent.said("disk_refuses") == 1
    lost = sum(reason["samples"] for reason in done["spool"]["lost"].values())
    assert samples_in_lake(car) + lost == count_samples(drive(drive_s))
    assert not lost or pending_max_bytes < 100_000, done["spool"]["lost"]
    told = in_lake(car, "SELECT sum(CAST(fields ->> 'samples' AS BIGINT)) FROM events WHERE kind = 'loss'")
    assert (told or 0) == lost


def test_a_receiver_with_a_full_disk_says_so_once_and_stores_everything_later(car: Car) -> None:
    drive_s = 10.0
    car.write(sources=vehicle(drive_s, speed=10.0))
    with disk_at(car.fleet.lake) as disk, receiving(car) as receiver, car.running() as agent:
        agent.until_status(lambda s: s["spool"]["acknowledged"] > 0, "received")
        disk.fill()
        receiver.until(lambda: "store_unavailable" in receiver.output(), "told")
        agent.until_status(lambda s: s["sources"][0]["state"] == "finished" and s["spool"]["waiting"], "kept")
        disk.free()
        agent.until_status(delivered, "delivered")
        assert receiver.output().count("store_unavailable") == 1
        assert samples_in_lake(car) == count_samples(drive(drive_s))
        assert agent.stop() == 0
        receiver.stop()


def test_programs_that_start_on_full_disks_wait_for_room(car: Car) -> None:
    drive_s = 5.0
    car.write(sources=vehicle(drive_s, speed=10.0))
    credentials = {file.name: file.read_bytes() for file in car.fleet.receiver.iterdir() if file.is_file()}
    with disk_at(car.folder / "state") as state, disk_at(car.fleet.receiver) as inbox:
        for name, content in credentials.items():
            (inbox.folder / name).write_bytes(content)
        state.fill()
        inbox.fill()
        agent = car.start()
        try:
            with receiving(car) as receiver:
                receiver.until(lambda: "store_unavailable" in receiver.output(), "told")
                agent.until(lambda: agent.said("start_postponed"), "told")
                state.free()
                inbox.free()
                agent.until_ready()
                agent.until_status(delivered, "delivered")
            assert agent.stop() == 0
        finally:
            agent.kill()
        assert agent.said("start_postponed") == 1
        assert samples_in_lake(car) == count_samples(drive(drive_s))
