"""Serve toggles to the apps of the head unit by OFREP, the OpenFeature Remote Evaluation Protocol.

A handler takes a request, returns a response, and counts it; it has no other effect.  The protocol is specified in
https://github.com/open-feature/protocol, service/openapi.yaml.

Rules are evaluated in a thread, because their bound (`rule_cost`) does not protect the event loop.  30 requests at one
time held the event loop for 5.8 s on a PC; a slow head unit would miss the 30 s of its watchdog.  The users take turns
(`fair_thread`), so an app with many requests delays each request of another user by only one of its own.

Invariant: an app cannot override facts about the vehicle, such as `brand` or `vehicle`.  An app may send its own
`targetingKey`, such as a user profile, and so influence a roll-out by `targetingKey`.  A rule that rolls out by vehicle
can use `vehicle` instead.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import TARGETING_KEY, Evaluation, Evaluator, FlagNotFound, vehicle_context
from agent.formats.down.rule_cost import Meter, all_flags
from agent.serve.changes import EVENT_STREAMS, SSE, Changes
from agent.serve.evaluation_counts import EvaluationCounts
from agent.serve.fair_thread import FairThread
from agent.serve.http import Request, Response, Route, json_response

EVALUATE: Final = "/ofrep/v1/evaluate/flags"
EVENT_STREAM: Final = "text/event-stream"


class _BadRequest(Exception):
    """Raised for a request that cannot be evaluated; `code` is the OpenFeature error code of the reason."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code


class ToggleService:
    """Serves the flags of the current definition.  `replace` exchanges the definition between two requests.

    `counts` counts the answers.
    """

    def __init__(self, vehicle: Attributes) -> None:
        self.counts = EvaluationCounts()
        self._changes = Changes()
        self.attributes = vehicle
        self._vehicle = vehicle_context(vehicle)
        self._evaluator: Evaluator | None = None
        self._thread = FairThread()

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the routes for `agent.serve.http.Server`."""
        return (
            Route("POST", EVALUATE, self._in_thread(self.evaluate_all)),
            Route("POST", f"{EVALUATE}/*", self._in_thread(self.evaluate_one)),
            Route("GET", SSE, self._stream),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the flags that can be evaluated."""
        return () if self._evaluator is None else self._evaluator.keys

    def replace(self, evaluator: Evaluator | None, tag: str = "") -> None:
        """Serve the flags of `evaluator` from now on; None serves no flags.

        Apps with an event stream are told if `tag` differs from the tag of the previous definition.
        """
        self._evaluator = evaluator
        self._changes.announce(tag)

    def evaluate(self, key: str) -> Evaluation:
        """Evaluate one flag for the vehicle itself, without the context of an app.

        Raises: FlagNotFound if no enabled flag has this key; Permanent if the rule of the flag fails.
        """
        return _evaluate(self._evaluator, key, self._vehicle)

    async def values(self, user: int | None) -> dict[str, Any]:
        """Return value, variant and reason of each flag for the vehicle itself, on behalf of the app of `user`."""
        return await self._thread.run(user, self._values)

    def evaluate_one(self, request: Request) -> Response:
        """Answer POST /ofrep/v1/evaluate/flags/{key}."""
        # A key may hold any character, so apps percent-encode it in the path.
        key = unquote(request.path.removeprefix(f"{EVALUATE}/"))
        try:
            evaluation = _evaluate(self._evaluator, key, self._context(request.body))
        except _BadRequest as error:
            return _failure(400, key, error.code, str(error))
        except FlagNotFound as error:
            return _failure(404, key, "FLAG_NOT_FOUND", str(error))
        except Permanent as error:
            self.counts.add([(key, None)])
            return _failure(400, key, "GENERAL", str(error))
        self.counts.add([(key, evaluation.variant)])
        return json_response(200, _success(key, evaluation))

    def evaluate_all(self, request: Request) -> Response:
        """Answer POST /ofrep/v1/evaluate/flags; the status is 304 if the client already has the same answer."""
        try:
            context = self._context(request.body)
        except _BadRequest as error:
            return json_response(400, {"errorCode": error.code, "errorDetails": str(error)})
        evaluator, whole = self._evaluator, all_flags()  # `replace` may be called meanwhile
        flags = [] if evaluator is None else [_result(evaluator, key, context, whole) for key in evaluator.keys]
        response = json_response(200, {"flags": flags, "eventStreams": EVENT_STREAMS})
        # The entity tag lets apps poll cheaply: most answers are a 304 without a body.
        tag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
        if _names(request.headers.get("if-none-match", ""), tag):
            return Response(304, headers={"ETag": tag})
        # A 304 tells an app nothing new, and would count how often apps poll.
        self.counts.add((flag["key"], flag.get("variant")) for flag in flags)
        return Response(200, response.body, {"ETag": tag})

    def _stream(self, request: Request) -> Response:
        """Answer GET /ofrep/v1/sse."""
        stream = self._changes.stream(request.headers.get("last-event-id", ""))
        return Response(200, headers={"Cache-Control": "no-cache"}, content_type=EVENT_STREAM, stream=stream)

    def _in_thread(self, answer: Callable[[Request], Response]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return lambda request: self._thread.run(request.user, partial(answer, request))

    def _values(self) -> dict[str, Any]:
        evaluator, whole = self._evaluator, all_flags()
        values: dict[str, Any] = {}
        for key in () if evaluator is None else evaluator.keys:
            # A toggle whose rule needs attributes of an app has no value here, and is left out.
            with contextlib.suppress(Permanent):
                evaluation = _evaluate(evaluator, key, self._vehicle, whole)
                values[key] = {"value": evaluation.value, "variant": evaluation.variant, "reason": evaluation.reason}
        return values

    def _context(self, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise _BadRequest("PARSE_ERROR", f"the body of the request is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise _BadRequest("PARSE_ERROR", "the body of the request must be a JSON object with `context`")
        context = document.get("context", {})
        if not isinstance(context, dict):
            raise _BadRequest("INVALID_CONTEXT", "`context` must be a JSON object")
        key = context.get(TARGETING_KEY, self._vehicle[TARGETING_KEY])
        if not isinstance(key, str) or not key:
            raise _BadRequest("INVALID_CONTEXT", f"`{TARGETING_KEY}` must be a string that is not empty")
        # Facts about the vehicle come last, so that an app cannot override them.
        return {**context, **self._vehicle, TARGETING_KEY: key}


def _evaluate(
    evaluator: Evaluator | None, key: str, context: Mapping[str, Any], whole: Meter | None = None
) -> Evaluation:
    if evaluator is None:
        raise FlagNotFound(f"there is no flag {key!r}, because the fleet has not published any flags")
    return evaluator.evaluate(key, context, whole)


def _result(evaluator: Evaluator, key: str, context: Mapping[str, Any], whole: Meter) -> dict[str, Any]:
    try:
        return _success(key, _evaluate(evaluator, key, context, whole))
    except Permanent as error:
        return {"key": key, "errorCode": "GENERAL", "errorDetails": str(error)}


def _success(key: str, evaluation: Evaluation) -> dict[str, Any]:
    answer = {"key": key, "reason": evaluation.reason, "metadata": evaluation.metadata}
    # Without a variant the app uses the default in its own code, so an OFREP answer then has no value.
    if evaluation.variant is not None:
        answer |= {"variant": evaluation.variant, "value": evaluation.value}
    return answer


def _failure(status: int, key: str, code: str, details: str) -> Response:
    return json_response(status, {"key": key, "errorCode": code, "errorDetails": details})


def _names(header: str, tag: str) -> bool:
    """Return whether `header`, the value of If-None-Match, names `tag`."""
    # RFC 9110, section 13.1.2, demands the weak comparison, in which the prefix W/ does not count.
    return any(candidate.strip().removeprefix("W/") in (tag, "*") for candidate in header.split(","))
