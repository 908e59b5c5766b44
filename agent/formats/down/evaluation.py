"""Evaluating toggles: the only import of flagd's evaluator in the project.

Pure but for `$flagd.timestamp`, which the evaluator reads from the clock.  Invariant: a flag either
evaluates to a value of its own kind or raises Permanent; rules are data from outside, and whatever they do
stays that flag's failure.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.toggles import FlagKind, Toggles, parse_toggles

Context = Mapping[str, Any]
TARGETING_KEY: Final = "targetingKey"

# The evaluator logs what it also returns or raises; without a handler Python would print it on stderr.
logging.getLogger("openfeature.contrib").addHandler(logging.NullHandler())


class FlagNotFound(Permanent):
    """There is no such flag, or it is disabled, which is the same to whoever asks."""


def vehicle_context(vehicle: Attributes) -> dict[str, str | int]:
    """What rules may ask about the vehicle; its pseudonym is also the key of `fractional` roll-outs."""
    return {
        TARGETING_KEY: vehicle.vehicle,
        "vehicle": vehicle.vehicle,
        "brand": vehicle.brand,
        "model": vehicle.model,
        "market": vehicle.market,
        "modelYear": vehicle.model_year,
    }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluated flag.  `variant` None: the caller's own default applies, and `value` says nothing."""

    value: Any
    variant: str | None
    reason: str
    metadata: Mapping[str, str | int | float | bool]


class Evaluator:
    """Evaluates the flags of one definition."""

    def __init__(self, toggles: Toggles) -> None:
        # Imported with the first definition: a vehicle without toggles starts without it.
        from openfeature.contrib.tools.flagd.core import FlagdCore  # noqa: PLC0415
        from openfeature.evaluation_context import EvaluationContext  # noqa: PLC0415
        from openfeature.exception import OpenFeatureError  # noqa: PLC0415

        self._context, self._error = EvaluationContext, OpenFeatureError
        self._toggles = toggles
        self._core = FlagdCore()
        try:
            self._core.set_flags(toggles.resolved)
        except OpenFeatureError as error:
            raise Permanent(f"flagd refuses the definition: {error.error_message}") from error
        self._resolve: Mapping[FlagKind, tuple[Callable[..., Any], Any]] = {
            FlagKind.BOOLEAN: (self._core.resolve_boolean_value, False),
            FlagKind.STRING: (self._core.resolve_string_value, ""),
            FlagKind.INTEGER: (self._core.resolve_integer_value, 0),
            FlagKind.FLOAT: (self._core.resolve_float_value, 0.0),
            FlagKind.OBJECT: (self._core.resolve_object_value, {}),
        }

    @property
    def keys(self) -> tuple[str, ...]:
        """Enabled flags, in the order of the document."""
        return tuple(key for key in self._toggles.kinds if key not in self._toggles.disabled)

    def evaluate(self, key: str, context: Context) -> Evaluation:
        """Evaluate one flag for `context` (attributes and `targetingKey`).

        Raises FlagNotFound or Permanent.
        """
        if key not in self._toggles.kinds:
            raise FlagNotFound(f"there is no flag {key!r}")
        if key in self._toggles.disabled:
            raise FlagNotFound(f"flag {key!r} is disabled")
        attributes = {name: value for name, value in context.items() if name != TARGETING_KEY}
        resolve, default = self._resolve[self._toggles.kinds[key]]
        try:
            details = resolve(key, default, self._context(context.get(TARGETING_KEY), attributes))
        except self._error as error:
            raise Permanent(f"flag {key!r}: {error.error_message or error.error_code}") from error
        # What JsonLogic's operators raise on operands that they were not made for, such as a modulo by zero.
        except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            raise Permanent(f"flag {key!r}: its targeting fails: {error}") from error
        return Evaluation(details.value, details.variant, str(details.reason), dict(details.flag_metadata))


def check_toggles(document: bytes, source: str, contexts: Iterable[Context]) -> Evaluator:
    """Validate a flag definition and evaluate every flag once for each context.

    Raises Permanent naming the flag.
    """
    evaluator = Evaluator(parse_toggles(document, source))
    for context in ({}, *contexts):
        for key in evaluator.keys:
            try:
                evaluator.evaluate(key, context)
            except Permanent as error:
                raise Permanent(f"{source}: {error}") from error
    return evaluator
