"""Plays an object store on loopback: as much of S3 as the Delta library asks for, with the objects in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "fleet"
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class _Handler(BaseHTTPRequestHandler):
    objects: dict[str, bytes]
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": _DATE, "ETag": '"1"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            # A commit of the Delta log must not replace another one.
            if self.headers.get("If-None-Match") == "*" and self._key in self.objects:
                return self._answer(412)
            self.objects[self._key] = body
        return self._answer(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self._key, None)
        self._answer(204)

    def do_HEAD(self) -> None:
        body = self.objects.get(self._key)
        self._answer(404) if body is None else self._answer(200, Content_Length=str(len(body)))

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            return self._list(*(query.get(name, [""])[0] for name in ("prefix", "delimiter", "start-after")))
        body = self.objects.get(self._key)
        if body is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if (wanted := self.headers.get("Range")) is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin = int(first) if first else len(body) - int(last)
            end = min(int(last) + 1, len(body)) if first and last else len(body)
            return self._answer(206, body[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(body)}")
        return self._answer(200, body)

    def _list(self, prefix: str, delimiter: str, after: str) -> None:
        found, folders = [], set()
        for key, body in sorted(self.objects.items()):
            if key.startswith(prefix) and key > after:
                rest = key.removeprefix(prefix)
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    found.append((key, len(body)))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>1</ETag><Size>{size}</Size></Contents>"
            for key, size in found
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"
        self._answer(200, body.encode(), Content_Type="application/xml")


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Run a store, and yield the options by which the Delta library finds it."""
    handler = type("Handler", (_Handler,), {"objects": {}, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "aws_endpoint": f"http://127.0.0.1:{server.server_port}",
            "aws_allow_http": "true",
            "aws_region": "eu-central-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
