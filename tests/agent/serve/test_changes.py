"""Test that apps are told of changes, over a real socket, as a client of Server-Sent Events is."""

import asyncio
import json

from agent.formats.down.evaluation import Evaluator
from agent.formats.down.toggles import parse_toggles
from agent.serve.changes import Changes
from agent.serve.toggles import ToggleService
from tests.agent.serve.serving import Served, serving
from tests.agent.serve.test_toggles import CAR, DOCUMENT

FLAGS = Evaluator(parse_toggles(DOCUMENT, "t.json"))


class Stream:
    """An app's stream of events."""

    def __init__(self, served: Served, last_id: str | None = None) -> None:
        self._served, self._last_id = served, last_id
        self.head = ""

    async def __aenter__(self) -> "Stream":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._served.port)
        resume = "" if self._last_id is None else f"Last-Event-ID: {self._last_id}\r\n"
        self._writer.write(f"GET /ofrep/v1/sse HTTP/1.1\r\nHost: 127.0.0.1\r\n{resume}\r\n".encode())
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def chunk(self) -> str:
        """Return the next chunk of the body (RFC 9112, section 7.1)."""
        async with asyncio.timeout(5):
            size = int(await self._reader.readline(), 16)
            return (await self._reader.readexactly(size + 2))[:-2].decode()

    async def tag(self) -> str:
        """Return the tag of the next message, which must ask for another evaluation."""
        while not (chunk := await self.chunk()).startswith("id: "):
            pass
        lines = dict(line.split(": ", 1) for line in chunk.strip().splitlines())
        data = json.loads(lines["data"])
        assert (lines["event"], data["type"]) == ("message", "refetchEvaluation")
        assert data["etag"] == lines["id"]
        return lines["id"]


def test_a_stream_tells_the_definition_in_force_and_each_change() -> None:
    async def run() -> None:
        service = ToggleService(CAR)
        service.replace(FLAGS, "one")
        async with serving(service.routes) as served, Stream(served) as first, Stream(served) as second:
            assert "200" in first.head
            assert "text/event-stream" in first.head
            assert [await first.tag(), await second.tag()] == ["one", "one"]
            service.replace(FLAGS, "two")
            assert [await first.tag(), await second.tag()] == ["two", "two"]
            service.replace(FLAGS, "two")
            service.replace(None, "")
            assert await first.tag() == ""

    asyncio.run(run())


def test_an_app_that_comes_back_hears_only_of_what_it_has_missed() -> None:
    async def run() -> None:
        service = ToggleService(CAR)
        service.replace(FLAGS, "two")
        async with serving(service.routes) as served:
            async with Stream(served, "one") as missed:
                assert await missed.tag() == "two"
            async with Stream(served, "two") as current:
                assert (await current.chunk()).startswith("retry: ")
                service.replace(FLAGS, "three")
                assert await current.tag() == "three"

    asyncio.run(run())


def test_an_app_that_reads_slowly_gets_the_newest_tag_only() -> None:
    async def run() -> list[bytes]:
        changes = Changes()
        changes.announce("0")
        stream = changes.stream()
        chunks = [await anext(stream), await anext(stream)]
        for number in range(1, 1_000):
            changes.announce(str(number))
        return [*chunks, await anext(stream)]

    assert [chunk.split(b"\n")[0] for chunk in asyncio.run(run())] == [b"retry: 1000", b"id: 0", b"id: 999"]


def test_a_quiet_stream_is_kept_alive_so_that_lost_apps_are_noticed() -> None:
    async def run() -> list[bytes]:
        stream = Changes(keep_alive_s=0.01).stream()
        return [await anext(stream) for _ in range(3)]

    assert asyncio.run(run())[1:] == [b": keep-alive\n\n"] * 2


def test_the_bulk_answer_names_the_stream() -> None:
    from tests.agent.serve.test_toggles import ask

    (stream,) = ask(None).json["eventStreams"]
    assert stream == {"type": "sse", "endpoint": {"requestUri": "/ofrep/v1/sse"}}
