"""A lake is a folder or a URL, and URL and options reach the Delta library.  No test uses a real object store."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.errors import AgentError, Permanent
from fleet.lake.location import Location, read_location
from fleet.lake.opening import open_table
from fleet.lake.query import ask_sql
from fleet.lake.rows import rows_of
from fleet.lake.tables import Lake
from tests.fleet.lake.test_ledger import batch


class Refusing(BaseHTTPRequestHandler):
    """Simulates an object store that refuses every request, and keeps (path, Authorization) of each."""

    asked: list[tuple[str, str]]

    def _refuse(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(403)
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = _refuse  # noqa: N815 (names of http.server)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    handler = type("Handler", (Refusing,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


def test_a_lake_behind_a_file_url_is_the_folders(tmp_path: Path) -> None:
    url = read_location(f"file://{tmp_path}/lake", None)
    lake = Lake(url)
    for table in ("samples", "events", "batches"):
        lake.append(table, "test", 1, [rows_of(batch(1))])
    for where in (url, str(tmp_path / "lake")):
        assert ask_sql(where, "SELECT count(*) FROM samples").rows == ((20,),)


def test_a_folder_is_made_absolute_and_a_url_stays_as_it_is(tmp_path: Path) -> None:
    options = tmp_path / "options.toml"
    options.write_text('aws_region = "eu-central-1"\n')
    assert read_location("lake", None).uri == str(Path("lake").resolve())
    location = read_location("s3://bucket/fleet/lake/", options)
    assert location == Location("s3://bucket/fleet/lake/", {"aws_region": "eu-central-1"})
    assert location.table("samples") == "s3://bucket/fleet/lake/samples"
    assert "eu-central-1" not in repr(location)  # options may hold secrets


def test_url_and_options_reach_the_object_store_and_its_refusal_names_the_table(
    store: tuple[str, list[tuple[str, str]]],
) -> None:
    endpoint, asked = store
    options = {
        "aws_endpoint": endpoint,
        "aws_region": "eu-central-1",
        "aws_access_key_id": "ID-OF-THE-TEST",
        "aws_secret_access_key": "secret",
        "aws_allow_http": "true",
    }
    with pytest.raises(AgentError, match="s3://bucket/fleet/lake"):
        Lake(Location("s3://bucket/fleet/lake", options))
    with pytest.raises(AgentError, match="s3://bucket/fleet/lake"):
        open_table(Location("s3://bucket/fleet/lake", options), "samples")
    assert asked
    for path, authorization in asked:
        assert path.startswith("/bucket")
        assert "fleet/lake/samples" in path or "fleet%2Flake%2Fsamples" in path
        assert "ID-OF-THE-TEST" in authorization
        assert "eu-central-1/s3" in authorization


def test_a_url_that_nothing_opens_is_one_message() -> None:
    with pytest.raises(Permanent, match="nonsense://x/lake/samples"):
        Lake("nonsense://x/lake")


@pytest.mark.parametrize("text", ["region = 5", "no toml at all", None])
def test_options_that_cannot_be_read_name_the_file(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "options.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Permanent, match=r"options\.toml"):
        read_location("s3://bucket/lake", file)
