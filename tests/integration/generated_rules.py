"""Makes flag definitions with random targeting rules over the vehicle's attributes and over what apps send."""

import random
from typing import Any

BRANDS = ("Aria", "Bora")
MODELS = ("One", "Two")
MARKETS = ("DE", "US", "CN")
YEARS = (2025, 2026)
CONTEXTS: tuple[tuple[str | None, dict[str, Any]], ...] = (
    (None, {}),
    ("anna", {"premium": True, "seats": 5, "app": "2.1.0"}),
    ("ben", {"premium": False, "seats": 2, "app": "1.9.3", "brand": "Bora"}),
)
"""The targeting key and the attributes of each app that asks.  The last app tries to pass for a vehicle of a brand."""
VARIANTS: dict[str, dict[str, Any]] = {
    "boolean": {"a": True, "b": False},
    "string": {"a": "x", "b": "y", "c": ""},
    "integer": {"a": 1, "b": 2, "c": -3},
    "float": {"a": 0.5, "b": 10.0},
    "object": {"a": {"rows": 2}, "b": {"rows": []}},
}


class Rules:
    """Makes random rules.  The same `seed` makes the same rules."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def flag(self, kind: str) -> dict[str, Any]:
        variants = VARIANTS[kind]
        rule = self._outcome(list(variants), 3)
        flag = {"state": "ENABLED", "variants": variants, "defaultVariant": self._random.choice(list(variants))}
        return flag | {"targeting": rule if isinstance(rule, dict) else {"if": [True, rule]}}

    def _outcome(self, variants: list[str], depth: int) -> Any:
        choice = self._random.randrange(5 if depth else 2)
        if choice == 0:
            return self._random.choice([*variants, None])
        if choice == 1:
            weights = [self._random.randint(1, 60) for _ in variants]
            shares = [list(pair) for pair in zip(variants, weights, strict=True)]
            by = self._random.choice(
                [None, {"var": "vehicle"}, {"cat": [{"var": "$flagd.flagKey"}, {"var": "vehicle"}]}]
            )
            return {"fractional": shares if by is None else [by, *shares]}
        return {"if": [self._condition(2), self._outcome(variants, depth - 1), self._outcome(variants, depth - 1)]}

    def _condition(self, depth: int) -> Any:
        if depth and self._random.random() < 0.4:
            operator = self._random.choice(["and", "or", "!"])
            count = 1 if operator == "!" else 2
            return {operator: [self._condition(depth - 1) for _ in range(count)]}
        pick = self._random.choice
        return pick(
            [
                {"==": [{"var": "brand"}, pick(BRANDS)]},
                {"!=": [{"var": "model"}, pick(MODELS)]},
                {"in": [{"var": "market"}, list(self._random.sample(MARKETS, 2))]},
                {pick([">=", "<", "==="]): [{"var": pick(["model_year", "modelYear"])}, pick(YEARS)]},
                {"starts_with": [{"var": "vehicle"}, pick("0123456789abcdef")]},
                {"ends_with": [{"cat": [{"var": "brand"}, "-", {"var": "market"}]}, pick(MARKETS)]},
                {"var": "premium"},
                {">": [{"var": ["seats", 4]}, self._random.randint(1, 6)]},
                {"sem_ver": [{"var": "app"}, pick([">=", "^", "~"]), pick(["2.0.0", "1.9.0"])]},
                {"==": [{"var": "targetingKey"}, pick(["anna", "ben"])]},
                {"missing": [pick(["premium", "brand", "seats"])]},
                {"<": [{"%": [{"var": "model_year"}, self._random.randint(2, 7)]}, 2]},
            ]
        )


def definition(count: int, seed: int = 12) -> dict[str, Any]:
    """Return `count` flags with random rules, in turn of each type."""
    rules, kinds = Rules(seed), list(VARIANTS)
    return {"flags": {f"{kind}-{number}": rules.flag(kind) for number in range(count) if (kind := kinds[number % 5])}}
