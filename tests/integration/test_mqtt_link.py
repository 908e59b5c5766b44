"""Test the MQTT link against a real mosquitto with TLS, client certificates and an ACL."""

import asyncio
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import Permanent, Transient
from agent.formats import topics
from agent.link.endpoint import socket_class, tls_context
from agent.link.mqtt import Connection, Endpoint, PublishRefused, connect
from agent.link.packets import Inspector
from fleet.state.folder import RENEW_RECEIVER
from lab.mosquitto import PACKET_BYTES
from lab.road import Road
from tests.integration.mosquitto import Authority, World, world

pytestmark = pytest.mark.integration

VEHICLE = "0b9f6c1e-94a1-4c6e-8f0e-2a7f4f1d3c55"
STRANGER = "3f0c3f5a-7c0f-4a53-9b50-0d9f2f6f4a11"
UP = topics.up(3, VEHICLE, topics.Lane.LIVE)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as running:
        yield running


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, and check that it leaves no task on the event loop."""

    async def checked() -> None:
        before = asyncio.all_tasks()
        await work()
        assert asyncio.all_tasks() == before

    asyncio.run(checked(), debug=False)


@contextmanager
def stalled(fleet: World) -> Iterator[None]:
    """Stop the broker's process with SIGSTOP for a `with` block, so that it keeps its connections and does nothing."""
    pid = fleet.broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if fleet.broker.pid == pid:  # the block has not killed the broker
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def receiver(fleet: World) -> AsyncIterator[asyncio.Queue[tuple[str, bytes]]]:
    received: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def listen(connection: Connection) -> None:
        async for message in connection.messages():
            received.put_nowait(message)

    async with connect(fleet.endpoint("receiver")) as connection:
        await connection.subscribe([f"{topics.ROOT}/up/#"])
        task = asyncio.create_task(listen(connection))
        try:
            yield received
        finally:
            task.cancel()
            await asyncio.wait({task})


def failure(endpoint: Endpoint) -> str:
    async def attempt() -> None:
        async with connect(endpoint):
            pass

    with pytest.raises((Transient, Permanent)) as caught:
        run(attempt)
    return str(caught.value)


def test_a_message_arrives_and_is_acknowledged(fleet: World) -> None:
    async def work() -> None:
        async with receiver(fleet) as received, connect(fleet.endpoint(VEHICLE)) as connection:
            assert await connection.publish(UP, b"sealed") == 0
            async with asyncio.timeout(5):
                assert await received.get() == (UP, b"sealed")

    run(work)


@pytest.mark.attack(
    "2",
    "a hostile message is retained at the broker",
    how="A message is published as retained, and a client connects later.",
    before="the receiver ended again at every start",
)
def test_a_retained_message_reaches_nobody_who_connects_later(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE)) as connection:
            # A hostile vehicle would use another MQTT library.
            info = connection._client._client.publish(UP, b"left behind", qos=1, retain=True)  # type: ignore[attr-defined]
            await asyncio.to_thread(info.wait_for_publish, 5)
            async with receiver(fleet) as received:
                assert await connection.publish(UP, b"live") == 0
                async with asyncio.timeout(5):
                    assert await received.get() == (UP, b"live")
            info = connection._client._client.publish(UP, b"", qos=1, retain=True)  # type: ignore[attr-defined]
            await asyncio.to_thread(info.wait_for_publish, 5)

    run(work)


def test_connack_limits_are_read(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE)) as connection:
            assert connection.limits.receive_maximum == 20  # mosquitto's max_inflight_messages
            assert connection.limits.maximum_packet_size == PACKET_BYTES

    run(work)


def test_more_messages_than_receive_maximum_all_arrive(fleet: World) -> None:
    async def work() -> None:
        async with receiver(fleet) as received, connect(fleet.endpoint(VEHICLE)) as connection:
            payloads = [b"%d" % number for number in range(300)]
            await asyncio.gather(*(connection.publish(UP, payload) for payload in payloads))
            async with asyncio.timeout(5):
                assert sorted([(await received.get())[1] for _ in payloads]) == sorted(payloads)

    run(work)


def test_a_denied_publish_is_refused_with_its_reason_and_the_connection_lives(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE)) as connection:
            with pytest.raises(PublishRefused, match=r"refused a message .*Not authorized \(0x87\).*ACL") as caught:
                await connection.publish(topics.up(3, STRANGER, topics.Lane.LIVE), b"forged")
            assert caught.value.reason == 0x87
            assert await connection.publish(UP, b"own") < 0x80

    run(work)


def test_a_message_above_maximum_packet_size_never_leaves(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE)) as connection:
            with pytest.raises(PublishRefused, match="exceeds the Maximum Packet Size") as caught:
                await connection.publish(UP, bytes(PACKET_BYTES))
            assert caught.value.reason == 0x95
            assert await connection.publish(UP, bytes(PACKET_BYTES - 200)) < 0x80

    run(work)


def test_unread_messages_wait_at_the_broker_and_none_is_lost(fleet: World) -> None:
    async def work() -> None:
        reader = fleet.endpoint("receiver", receive_maximum=4)
        async with connect(reader) as slow, connect(fleet.endpoint(VEHICLE)) as connection:
            await slow.subscribe([f"{topics.ROOT}/up/#"])
            await asyncio.gather(*(connection.publish(UP, b"%d" % number) for number in range(100)))
            await asyncio.sleep(0.2)
            assert len(slow._client.messages) <= 4
            taken = []
            async with asyncio.timeout(10):
                async for _, payload in slow.messages():
                    taken.append(int(payload))
                    if len(taken) == 100:
                        break
            assert taken == list(range(100))

    run(work)


def test_a_killed_broker_fails_all_waiting_publishes_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):  # no PUBACK may come before the kill
                    waiting = [connection.publish(UP, b"x") for _ in range(50)]
                    await asyncio.sleep(0.1)
                    fleet.broker.kill()
                async with asyncio.timeout(2):
                    results = await asyncio.gather(*waiting, return_exceptions=True)
                assert all(isinstance(result, Transient) for result in results)
                with pytest.raises(Transient, match=f"connection to 127.0.0.1:{fleet.broker.port} was lost"):
                    async for _ in connection.messages():
                        pass

    run(work)


def test_a_stalled_broker_ends_the_connection_when_puback_does_not_come(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):
                    with pytest.raises(Transient, match="no PUBACK"):
                        await connection.publish(UP, b"x", timeout_s=0.3)
                    with pytest.raises(Transient, match="no PUBACK"):
                        async for _ in connection.messages():
                            pass

    run(work)


def test_a_half_open_connection_is_noticed_within_two_keep_alives_though_nothing_is_sent(fleet: World) -> None:
    async def work() -> None:
        async with Road(fleet.broker.port) as road:
            endpoint = fleet.endpoint(VEHICLE, host="127.0.0.1", port=road.port, keepalive_s=1)
            async with connect(endpoint) as connection:
                await connection.publish(UP, b"x")
                road.stall()
                started_s = time.monotonic()
                with pytest.raises(Transient, match="lost"):
                    async for _ in connection.messages():
                        pass
                assert time.monotonic() - started_s < 2 * endpoint.keepalive_s + 2.0  # paho checks once a second

    run(work)


def test_a_half_open_connection_is_noticed_by_a_publish_in_its_time(fleet: World) -> None:
    async def work() -> None:
        async with Road(fleet.broker.port) as road:
            endpoint = fleet.endpoint(VEHICLE, host="127.0.0.1", port=road.port)
            async with connect(endpoint) as connection:
                road.half_open()
                started_s = time.monotonic()
                with pytest.raises(Transient):
                    await asyncio.gather(*(connection.publish(UP, bytes(60_000), timeout_s=0.5) for _ in range(20)))
                assert time.monotonic() - started_s < 1.5

    run(work)


def test_a_connection_tells_its_own_address(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE, host="127.0.0.1")) as connection:
            assert connection.own_address == "127.0.0.1"

    run(work)


def test_what_a_lost_connection_held_is_not_sent_by_the_next(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):
                    task = connection.publish(UP, b"old")
                    await asyncio.sleep(0.1)
                    fleet.broker.kill()
                with pytest.raises(Transient):
                    await task
            fleet.broker.start()
            async with receiver(fleet) as received, connect(fleet.endpoint(VEHICLE)) as connection:
                await connection.publish(UP, b"new")
                async with asyncio.timeout(5):
                    assert (await received.get())[1] == b"new"
                assert received.empty()

    run(work)


def test_a_cancelled_publish_keeps_its_slot_until_its_puback(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):
                    tasks = [connection.publish(UP, b"x") for _ in range(20)]
                    await asyncio.sleep(0.05)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    late = connection.publish(UP, b"late")
                    await asyncio.sleep(0.05)
                    assert connection._client._client._last_mid == 20  # 20 are unacknowledged, so the late one waits
                async with asyncio.timeout(5):
                    await late

    run(work)


def test_a_publish_that_was_given_up_while_it_waited_is_not_sent_and_holds_up_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):
                    answers = [connection.publish(UP, b"x") for _ in range(23)]  # at most 20 are in flight
                    answers[20].cancel()
                    answers[21].cancel()
                async with asyncio.timeout(5):
                    await asyncio.gather(*answers[:20], answers[22])
                assert connection._client._client._last_mid == 21

    run(work)


def test_a_shorter_patience_counts_beside_a_longer_one(tmp_path: Path) -> None:
    async def work() -> None:
        with world(tmp_path) as fleet:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                with stalled(fleet):
                    patient = connection.publish(UP, b"x")
                    async with asyncio.timeout(5):
                        with pytest.raises(Transient, match=r"no PUBACK for .* in 0\.3 s"):
                            await connection.publish(UP, b"x", 0.3)
                        with pytest.raises(Transient):
                            await patient

    run(work)


def test_nothing_listening_is_one_clear_message(fleet: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = failure(fleet.endpoint(VEHICLE, port=port))
    assert message == (
        f"nothing listens on 127.0.0.1:{port}; check that the broker is running and that the port is right"
    )


@pytest.mark.parametrize("host", ["no-such-broker.invalid", "x" * 64 + ".invalid"])
def test_an_unknown_host_name_is_one_clear_message(fleet: World, host: str) -> None:
    message = failure(fleet.endpoint(VEHICLE, host=host))
    assert message == f"the host name {host} cannot be resolved; check the name and the DNS server"


def test_an_expired_own_certificate_is_named_before_connecting(fleet: World) -> None:
    cert_file, key_file = fleet.authority.client("expired", days_ago=20)
    message = failure(fleet.endpoint(VEHICLE, cert_file=cert_file, key_file=key_file))
    assert message.startswith(f"{cert_file}: the certificate expired on ")
    assert message.endswith("enrol again")


def test_a_broker_that_refuses_our_authority_is_one_clear_message(fleet: World, tmp_path: Path) -> None:
    cert_file, key_file = Authority.create(tmp_path, "another authority").client(VEHICLE)
    message = failure(fleet.endpoint(VEHICLE, cert_file=cert_file, key_file=key_file))
    assert message.startswith(f"broker 127.0.0.1:{fleet.broker.port} refuses {cert_file}: it comes from an authority")


def test_why_a_broker_refuses_us_is_heard_even_where_sending_fails_first(fleet: World, tmp_path: Path) -> None:
    cert_file, key_file = Authority.create(tmp_path, "another authority").client(VEHICLE)
    endpoint = fleet.endpoint(VEHICLE, cert_file=cert_file, key_file=key_file)
    faults: list[OSError] = []
    context = tls_context(endpoint, datetime.now(UTC))
    context.sslsocket_class = socket_class(faults, Inspector(endpoint.maximum_packet_bytes))
    with (
        socket.create_connection((endpoint.host, endpoint.port)) as plain,
        context.wrap_socket(plain, server_hostname=endpoint.host) as tls,
        pytest.raises(OSError),
    ):
        for _ in range(100):
            tls.send(b"hello")
            time.sleep(0.05)
    assert [fault.reason for fault in faults if isinstance(fault, ssl.SSLError)] == ["TLSV1_ALERT_UNKNOWN_CA"]


def test_a_vehicle_at_the_port_of_the_fleet_and_a_receiver_at_the_port_of_vehicles_get_the_port_as_the_remedy(
    fleet: World,
) -> None:
    for name, port in ((VEHICLE, fleet.broker.fleet_port), ("receiver", fleet.broker.port)):
        message = failure(fleet.endpoint(name, port=port))
        assert "check address and port" in message
        assert "8883 for vehicles and 8884 for the fleet's programs" in message


def test_a_second_program_with_the_same_identity_is_named_as_a_cause(fleet: World) -> None:
    async def work() -> None:
        async with connect(fleet.endpoint(VEHICLE)) as first, connect(fleet.endpoint(VEHICLE)):
            with pytest.raises(Transient, match="another program may use the same identity"):
                async for _ in first.messages():
                    pass

    run(work)


def test_a_program_of_the_fleet_is_not_told_to_enrol(fleet: World) -> None:
    message = failure(replace(fleet.endpoint("receiver", port=fleet.broker.port), renew=RENEW_RECEIVER))
    assert message.endswith("or renew the certificate (fleet keys renew receiver)")
    assert "enrol" not in message


def test_a_broker_that_stops_is_the_first_cause_that_is_named(tmp_path: Path) -> None:
    with world(tmp_path) as fleet:

        async def work() -> None:
            async with connect(fleet.endpoint(VEHICLE)) as connection:
                fleet.broker.stop()
                with pytest.raises(Transient) as caught:
                    async for _ in connection.messages():
                        pass
            message = str(caught.value)
            assert "code:" not in message
            assert re.search(r"was lost \(the broker (shuts down|gave no reason)\); it connects again", message), (
                message
            )

        run(work)


def test_a_broker_of_another_authority_is_one_clear_message(tmp_path: Path) -> None:
    with world(tmp_path, authority=Authority.create(tmp_path / "other", "other")) as fleet:
        message = failure(fleet.endpoint(VEHICLE))
        assert message == (
            f"the certificate of broker 127.0.0.1:{fleet.broker.port} is not signed by an authority in "
            f"{fleet.authority.ca_file}; check the broker's address and that file"
        )


def test_a_broker_whose_certificate_expired_is_one_clear_message(tmp_path: Path) -> None:
    with world(tmp_path, server_days_ago=20) as fleet:
        message = failure(fleet.endpoint(VEHICLE))
        assert "has expired; renew it, or set this machine's clock" in message


def test_a_broker_with_another_name_is_one_clear_message(tmp_path: Path) -> None:
    with world(tmp_path, names=["broker.example"]) as fleet:
        assert "does not name 127.0.0.1" in failure(fleet.endpoint(VEHICLE))


def test_a_port_without_tls_is_one_clear_message(fleet: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert failure(fleet.endpoint(VEHICLE, port=port)) == f"127.0.0.1:{port} does not speak TLS; check the port"
        thread.join()


def test_a_port_that_says_nothing_is_one_clear_message(fleet: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        message = failure(fleet.endpoint(VEHICLE, port=port, timeout_s=0.3))
    assert message == f"127.0.0.1:{port} does not answer within 0.3 s; check the network and the address"


def test_missing_and_wrong_files_are_named(fleet: World, tmp_path: Path) -> None:
    endpoint = fleet.endpoint(VEHICLE)
    missing = tmp_path / "missing.pem"
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not PEM")
    _, foreign_key = fleet.authority.client("foreign")
    for changes, expected in [
        ({"ca_file": missing}, f"{missing}: No such file"),
        ({"cert_file": missing}, f"{missing}: No such file"),
        ({"key_file": missing}, f"{missing}: No such file"),
        ({"ca_file": garbage}, f"{garbage}: the file is not a certificate authority"),
        ({"cert_file": garbage}, f"{garbage}: the file is not a certificate in PEM"),
        ({"key_file": garbage}, f"{garbage}: the file is not the private key of {endpoint.cert_file}"),
        ({"key_file": foreign_key}, f"{foreign_key}: the file is not the private key of {endpoint.cert_file}"),
    ]:
        assert failure(replace(endpoint, **changes)).startswith(expected)


def test_cancelling_a_hanging_connect_returns_at_once_and_leaves_nothing(fleet: World) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = fleet.endpoint(VEHICLE, port=server.getsockname()[1], timeout_s=0.5)

            async def hang() -> None:
                async with connect(endpoint):
                    pass

            task = asyncio.create_task(hang())
            await asyncio.sleep(0.1)
            task.cancel()
            async with asyncio.timeout(0.2):
                await asyncio.wait({task})
            assert task.cancelled()
            await asyncio.sleep(0.6)  # meanwhile the thread's handshake times out

    run(work)


def test_what_waits_unread_is_bounded_in_bytes(fleet: World) -> None:
    async def work() -> None:
        reader = fleet.endpoint("receiver", unread_bytes=40_000)
        async with connect(reader) as slow, connect(fleet.endpoint(VEHICLE)) as connection:
            await slow.subscribe([f"{topics.ROOT}/up/#"])
            await asyncio.gather(*(connection.publish(UP, bytes(5_000)) for _ in range(20)))
            with pytest.raises(Transient, match="more than 40000 bytes of messages wait"):
                async for _ in slow.messages():
                    await asyncio.sleep(0.2)

    run(work)
