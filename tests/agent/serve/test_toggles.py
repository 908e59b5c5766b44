"""Test OFREP as clients use it, over a real socket."""

import asyncio
import json
from typing import Any

import pytest

from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator
from agent.formats.down.toggles import parse_toggles
from agent.serve.toggles import ToggleService
from tests.agent.serve.serving import serving

CAR = Attributes("0f8fad5b-d9cb-469f-a165-70867728950e", "Aria", "One", "DE", 2026)


def boolean(targeting: Any = None, **more: Any) -> dict[str, Any]:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"} | more
    return flag if targeting is None else flag | {"targeting": targeting}


FLAGS: dict[str, Any] = {
    "plain": boolean(),
    "german cars/2": boolean({"if": [{"==": [{"var": "market"}, "DE"]}, "on", "off"]}),
    "profile": boolean({"if": [{"==": [{"var": "targetingKey"}, "anna"]}, "on", "off"]}),
    "this-car": boolean({"if": [{"==": [{"var": "targetingKey"}, CAR.vehicle]}, "on", "off"]}),
    "level": {"state": "ENABLED", "variants": {"low": 0.5, "high": 10}, "defaultVariant": "high"},
    "count": {"state": "ENABLED", "variants": {"few": 3}, "defaultVariant": "few"},
    "page": {"state": "ENABLED", "variants": {"a": {"rows": 2}}, "defaultVariant": "a", "metadata": {"owner": "hmi"}},
    "yours": {"state": "ENABLED", "variants": {"a": "x"}},
    "withdrawn": boolean(state="DISABLED"),
    "fragile": boolean({"if": [{"%": [7, {"var": ["divisor", 1]}]}, "on", "off"]}),
}


def document(flags: dict[str, Any] = FLAGS) -> bytes:
    return json.dumps({"flags": flags}).encode()


DOCUMENT = document()


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    key: str | None, body: bytes | dict[str, Any] = b"", headers: str = "", flags: bytes | None = document()
) -> Answer:
    async def run() -> bytes:
        service = ToggleService(CAR)
        service.replace(None if flags is None else Evaluator(parse_toggles(flags, "toggles.json")))
        async with serving(service.routes) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            content = body if isinstance(body, bytes) else json.dumps({"context": body}).encode()
            path = "/ofrep/v1/evaluate/flags" + ("" if key is None else f"/{key}")
            head = f"POST {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return answer

    return Answer(asyncio.run(run()))


def test_a_flag_is_evaluated_with_variant_and_reason() -> None:
    answer = ask("plain", {})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"key": "plain", "value": False, "variant": "off", "reason": "STATIC", "metadata": {}}


def test_the_vehicle_is_the_context_and_a_key_may_be_percent_encoded() -> None:
    answer = ask("german%20cars%2F2")
    assert (answer.json["value"], answer.json["reason"]) == (True, "TARGETING_MATCH")


def test_an_app_cannot_pass_itself_off_as_another_car() -> None:
    assert ask("german%20cars%2F2", {"market": "US"}).json["value"] is True


def test_the_targeting_key_is_the_vehicle_unless_the_app_has_its_own() -> None:
    assert ask("this-car").json["value"] is True
    assert ask("this-car", {"targetingKey": "anna"}).json["value"] is False
    assert ask("profile", {"targetingKey": "anna"}).json["value"] is True


def test_floats_keep_their_point_and_integers_do_not_get_one() -> None:
    assert b'"value":10.0' in ask("level").body
    assert b'"value":3,' in ask("count").body.replace(b"}", b",")


def test_objects_and_metadata_come_as_they_are() -> None:
    answer = ask("page").json
    assert (answer["value"], answer["metadata"]) == ({"rows": 2}, {"owner": "hmi"})


def test_without_a_default_variant_the_apps_own_default_applies() -> None:
    assert ask("yours").json == {"key": "yours", "reason": "DEFAULT", "metadata": {}}


@pytest.mark.parametrize("key", ["nobody", "withdrawn", "%00"])
def test_what_is_not_there_is_not_found(key: str) -> None:
    answer = ask(key)
    assert (answer.status, answer.json["errorCode"]) == (404, "FLAG_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b"[" * 50_000, "PARSE_ERROR"),
        (b'{"context":[]}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":7}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":""}}', "INVALID_CONTEXT"),
        (b'{"context":{"divisor":0}}', "GENERAL"),
    ],
)
def test_a_request_that_cannot_be_evaluated_gets_a_standard_error(body: bytes, code: str) -> None:
    answer = ask("fragile", body)
    assert (answer.status, answer.json["key"], answer.json["errorCode"]) == (400, "fragile", code)


def test_all_flags_at_once_leave_out_what_is_disabled() -> None:
    answer = ask(None, {"divisor": 0})
    flags = {flag["key"]: flag for flag in answer.json["flags"]}
    assert set(flags) == set(FLAGS) - {"withdrawn"}
    assert flags["plain"]["variant"] == "off"
    assert flags["fragile"]["errorCode"] == "GENERAL"


def test_who_has_the_answer_gets_304_until_it_changes() -> None:
    first = ask(None)
    tag = first.headers["etag"]
    again = ask(None, headers=f'If-None-Match: "other", W/{tag}\r\n')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert ask(None, {"targetingKey": "anna"}, f"If-None-Match: {tag}\r\n").status == 200


@pytest.mark.parametrize("body", [b"{", b'{"context":[]}'])
def test_a_bulk_request_that_cannot_be_read_gets_a_standard_error(body: bytes) -> None:
    assert ask(None, body).status == 400


def test_without_toggles_there_are_no_flags() -> None:
    assert ask(None, flags=None).json["flags"] == []
    assert ask("plain", flags=None).status == 404
