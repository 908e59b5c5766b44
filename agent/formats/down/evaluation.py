"""Evaluate toggles with the evaluator of flagd, which only this file imports.

This file is pure except that it reads the clock for `$flagd.timestamp`.

Invariants:

- Evaluating a flag either returns a value of the flag's own kind or raises Permanent.  Rules come from outside, and a
  rule that fails does not affect other flags.
- The time of an evaluation is bounded (`rule_cost`), because nothing can interrupt it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.rule_cost import Meter, all_flags
from agent.formats.down.toggles import FlagKind, Toggles

Context = Mapping[str, Any]
_OUTCOME: Final = "outcome"
_MESSAGE_CHARS: Final = 300
TARGETING_KEY: Final = "targetingKey"

# The evaluator logs errors that it also returns or raises, so an app could fill the log.
logging.getLogger("openfeature.contrib").propagate = False
logging.getLogger("openfeature.contrib").addHandler(logging.NullHandler())


class FlagNotFound(Permanent):
    """Raised if no enabled flag has the key.  To an app, a disabled flag looks like a missing flag."""


def vehicle_context(vehicle: Attributes) -> dict[str, str | int]:
    """Return the attributes of the vehicle that rules can use.

    The pseudonym is also the targeting key, so a `fractional` roll-out picks the same vehicles each time.
    """
    return {
        TARGETING_KEY: vehicle.vehicle,
        "vehicle": vehicle.vehicle,
        "brand": vehicle.brand,
        "model": vehicle.model,
        "market": vehicle.market,
        "model_year": vehicle.model_year,
        "software": vehicle.software,
        # The first name of this attribute, which published documents may use.
        "modelYear": vehicle.model_year,
    }


def for_vehicle(toggles: Toggles, vehicle: Attributes) -> Toggles:
    """Return `toggles` with rules that ask only for what an app sends; see `vehicle_rules`."""
    from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS  # noqa: PLC0415

    from agent.formats.down.rules import evaluate  # noqa: PLC0415
    from agent.formats.down.vehicle_rules import rule_for_vehicle  # noqa: PLC0415

    meter, facts = all_flags(), vehicle_context(vehicle)
    definition = json.loads(toggles.resolved)
    for key, flag in definition["flags"].items():
        if "targeting" in flag:
            calculate = partial(evaluate, operators=OPERATORS, meter=meter)
            flag["targeting"] = rule_for_vehicle(flag["targeting"], key, facts, calculate)
    return msgspec.structs.replace(toggles, resolved=json.dumps(definition))


class Evaluation(msgspec.Struct, frozen=True):
    """The result of evaluating one flag.

    If `variant` is None, the default in the app's code applies, and `value` has no meaning.
    """

    value: Any
    variant: str | None
    reason: str
    metadata: Mapping[str, str | int | float | bool]


def import_evaluator() -> None:
    """Import the evaluator now, because a process that is confined cannot import it later."""
    nothing = Toggles({}, frozenset(), '{"flags": {}}')
    Evaluator(for_vehicle(nothing, Attributes("", "", "", "", 0)))


class Evaluator:
    """Evaluates the flags of one definition."""

    def __init__(self, toggles: Toggles) -> None:
        # Importing the evaluator takes time and memory, so a vehicle without toggles starts without it.
        from openfeature.contrib.tools.flagd.core import FlagdCore  # noqa: PLC0415
        from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS  # noqa: PLC0415
        from openfeature.evaluation_context import EvaluationContext  # noqa: PLC0415
        from openfeature.exception import OpenFeatureError  # noqa: PLC0415

        from agent.formats.down.rules import RULE_ERRORS, evaluate  # noqa: PLC0415

        self._context, self._error, self._rule_errors = EvaluationContext, OpenFeatureError, RULE_ERRORS
        self._apply, self._operators = evaluate, OPERATORS
        self._toggles = toggles
        self._core = FlagdCore()
        try:
            # flagd cannot interrupt a rule.  The module `rules` therefore evaluates the rule, and flagd only looks up
            # the outcome.
            definition = json.loads(toggles.resolved)
            self._rules = {key: flag["targeting"] for key, flag in definition["flags"].items() if "targeting" in flag}
            for key in self._rules:
                definition["flags"][key]["targeting"] = {"var": [_OUTCOME]}
            self._core.set_flags(json.dumps(definition))
        except OpenFeatureError as error:
            raise Permanent(f"flagd refuses the definition: {error.error_message}; correct it") from error
        self._resolve: Mapping[FlagKind, tuple[Callable[..., Any], Any]] = {
            FlagKind.BOOLEAN: (self._core.resolve_boolean_value, False),
            FlagKind.STRING: (self._core.resolve_string_value, ""),
            FlagKind.INTEGER: (self._core.resolve_integer_value, 0),
            FlagKind.FLOAT: (self._core.resolve_float_value, 0.0),
            FlagKind.OBJECT: (self._core.resolve_object_value, {}),
        }

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the enabled flags, in the order of the document."""
        return tuple(key for key in self._toggles.kinds if key not in self._toggles.disabled)

    def evaluate(self, key: str, context: Context, whole: Meter | None = None) -> Evaluation:
        """Evaluate one flag for `context` (attributes and `targetingKey`).

        `whole` counts the operations of all evaluations for one request.

        Raises: FlagNotFound if no enabled flag has this key; Permanent if the rule of the flag fails.
        """
        if key not in self._toggles.kinds:
            raise FlagNotFound(f"there is no flag {key!r}")
        if key in self._toggles.disabled:
            raise FlagNotFound(f"flag {key!r} is disabled")
        resolve, default = self._resolve[self._toggles.kinds[key]]
        outcome: dict[str, Any] = {}
        try:
            if key in self._rules:
                outcome[_OUTCOME] = self._outcome_of(key, context, Meter(whole=whole))
            details = resolve(key, default, self._context(context.get(TARGETING_KEY), outcome))
        except Permanent as error:
            raise Permanent(f"flag {key!r}: {error}") from error
        except self._error as error:
            # The message may quote a long text that the rule has made.
            message = (error.error_message or str(error.error_code))[:_MESSAGE_CHARS]
            raise Permanent(f"flag {key!r}: {message}") from error
        except self._rule_errors as error:
            raise Permanent(f"flag {key!r}: the targeting rule fails: {error}") from error
        return Evaluation(details.value, details.variant, str(details.reason), dict(details.flag_metadata))

    def _outcome_of(self, key: str, context: Context, meter: Meter) -> str | float | bool | None:
        known = {"flagKey": key, "timestamp": int(time.time())}
        data = {TARGETING_KEY: None, **context, "$flagd": known}
        outcome = self._apply(self._rules[key], data, self._operators, meter)
        if isinstance(outcome, str | int | float) or outcome is None:
            return outcome
        raise Permanent("the targeting rule yields a list or an object; it must yield the name of a variant")


def check_toggles(toggles: Toggles, source: str, contexts: Iterable[Context]) -> Evaluator:
    """Evaluate every enabled flag, once without a context and once for each of `contexts`, and return the evaluator.

    Raises: Permanent naming `source` and the flag.
    """
    try:
        evaluator = Evaluator(toggles)
        for context in ({}, *contexts):
            for key in evaluator.keys:
                evaluator.evaluate(key, context)
    except Permanent as error:
        raise Permanent(f"{source}: {error}") from error
    return evaluator
