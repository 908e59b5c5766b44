"""Tell apps that the flags have changed, by the event streams of OFREP.

The stream is that of ADR-0008 of https://github.com/open-feature/protocol (OFREP 0.3): Server-Sent Events, with one
message for each change.  A message carries no flags.  The app asks for them by the usual request.

    id: 5c1f…
    data: {"type":"refetchEvaluation","etag":"5c1f…"}

The tag names the flag definition of this vehicle.  A stream begins with the present tag, so no change is lost between
an app's first request and its stream.  An app that reconnects with `Last-Event-ID` gets this message only if the
definition is another one.

Use an instance from one event loop only.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

SSE: Final = "/ofrep/v1/sse"
"""The path of the stream, which is the same as in flagd."""
EVENT_STREAMS: Final[tuple[Mapping[str, Any], ...]] = ({"type": "sse", "endpoint": {"requestUri": SSE}},)
"""The field `eventStreams` of OFREP answers.  It names no origin, so the stream is where the app found OFREP."""
KEEP_ALIVE_S: Final = 15.0
"""A comment is sent this often, so that the server finds out which apps have gone.

The specification of Server-Sent Events recommends it.
"""
_RETRY_MS: Final = 1_000
"""A client waits this long before it connects again.  An agent that reloads is back within a second."""


class Changes:
    """Announces the tag of the flag definition in force to all streams.

    A stream holds nothing but the last tag that it sent, so an app that reads slowly costs no memory, and gets the
    newest tag only.
    """

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._tag = ""
        self._changed = asyncio.Event()
        self._keep_alive_s = keep_alive_s

    def announce(self, tag: str) -> None:
        """Tell every stream that the definition named `tag` is in force."""
        if tag != self._tag:
            self._tag = tag
            # Each waiting stream holds the event that it waits for, so the event is never reset.
            self._changed.set()
            self._changed = asyncio.Event()

    async def stream(self, last_id: str = "") -> AsyncIterator[bytes]:
        """Yield the bytes of a stream, for ever; `last_id` is the tag that the app has had already."""
        yield f"retry: {_RETRY_MS}\n\n".encode()
        while True:
            changed = self._changed
            if self._tag != last_id:
                last_id = self._tag
                yield _message(last_id)
                continue
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    await changed.wait()
            except TimeoutError:
                yield b": keep-alive\n\n"


def _message(tag: str) -> bytes:
    data = json.dumps({"type": "refetchEvaluation", "etag": tag}, separators=(",", ":"))
    return f"id: {tag}\nevent: message\ndata: {data}\n\n".encode()
