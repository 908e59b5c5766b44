"""Computes a condition for one frame: plain floating-point numbers, None for undefined, one node after the other."""

import math
from typing import Protocol

from tests.conditions.language import Node

Value = float | bool | str | None


class Memory(Protocol):
    """What a condition asks its campaign."""

    def newest(self, name: str) -> float | None:
        """Return the newest kept value of a variable, or None."""

    def is_null(self, name: str) -> bool | None:
        """Return isNull of a variable, or None if no database has it."""


class Evaluator:
    """Evaluates one condition again and again.  `names` has what rose at the last evaluation."""

    def __init__(self, tree: Node) -> None:
        self._tree = tree
        self._high: dict[int, list[bool]] = {}  # by the place of each MULTI_RISING_EDGE_TRIGGER
        self.names: list[str] = []

    def is_true(self, memory: Memory) -> bool:
        self.names = []
        result = self.value(self._tree, memory)
        return result is not None and self.truth(result)

    def value(self, node: Node, memory: Memory) -> Value:
        if node.kind in ("number", "bool", "text"):
            return node.value  # type: ignore[return-value]
        if node.kind == "variable":
            return memory.newest(node.name)
        if node.kind == "isNull":
            return memory.is_null(node.name)
        operands = [self.value(operand, memory) for operand in node.operands]
        if node.name == "MULTI_RISING_EDGE_TRIGGER":
            return self.rising(node, operands)
        if any(operand is None for operand in operands):
            return None
        if isinstance(operands[0], str):
            return self.of_texts(node.name, str(operands[0]), str(operands[1]))
        if node.kind == "function":
            return self.function(node.name, [float(operand) for operand in operands])  # type: ignore[arg-type]
        return self.operator(node.name, operands)

    def truth(self, value: Value) -> bool:
        return value != 0  # NaN differs from 0, so it is true

    def rising(self, node: Node, operands: list[Value]) -> bool:
        high = [value is None or self.truth(value) for value in operands[1::2]]
        before = self._high.get(node.first)
        self._high[node.first] = high
        if before is None:
            return False
        rose = [
            str(name)
            for name, value, was in zip(operands[0::2], operands[1::2], before, strict=True)
            if value is not None and self.truth(value) and not was
        ]
        self.names += rose
        return bool(rose)

    def of_texts(self, name: str, left: str, right: str) -> Value:
        if name == "+":
            return left + right
        return (left == right) == (name == "==")

    def operator(self, name: str, operands: list[Value]) -> Value:
        if name == "!":
            return not self.truth(operands[0])
        if name in ("&&", "||"):
            truths = [self.truth(operand) for operand in operands]
            return all(truths) if name == "&&" else any(truths)
        left, right = (float(operand) for operand in operands)  # type: ignore[arg-type]
        if name in ("==", "!="):
            return self.equal(left, right) == (name == "==")
        if name == "/":
            return self.quotient(left, right)
        return {
            "+": left + right,
            "-": left - right,
            "*": left * right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[name]

    def equal(self, left: float, right: float) -> bool:
        return abs(left - right) < 0.001

    def quotient(self, left: float, right: float) -> float:
        if right != 0:
            return left / right
        if left == 0 or math.isnan(left):
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1, right)

    def function(self, name: str, operands: list[float]) -> float | None:
        if name == "abs":
            return abs(operands[0])
        if name in ("ceil", "floor"):
            one = operands[0]
            if not math.isfinite(one):
                return one
            # IEEE keeps the sign of a zero: ceil of -0.5 is -0.
            return math.copysign(math.ceil(one) if name == "ceil" else math.floor(one), one)
        if name in ("min", "max"):
            numbers = [one for one in operands if not math.isnan(one)]
            return (min if name == "min" else max)(numbers) if numbers else math.nan
        return self.power(*operands) if name == "pow" else self.logarithm(*operands)

    def power(self, base: float, exponent: float) -> float | None:
        try:
            result = math.pow(base, exponent)
        except (ValueError, OverflowError):
            return None
        finite = math.isfinite(base) and math.isfinite(exponent)
        return None if finite and not math.isfinite(result) else result

    def logarithm(self, base: float, of: float) -> float | None:
        if base <= 0 or of <= 0:
            return None
        return self.quotient(math.log(of), math.log(base))
