"""Makes random conditions by the rules of the grammar, so that precedence and chains come by themselves."""

from collections.abc import Mapping, Sequence
from random import Random

_JITTER = (0.0, 0.0, 0.0, 0.0005, -0.0005, 0.000999, -0.001, 0.001, 0.0010001, -0.0010001)
_WHOLE = ("0", "1", "2", "-1", "-0", ".5", "5.", "1e3", "2E-2", "1e+1", "1e999", "-1e999", "1e300", "0.0", "10")
_COMPARISONS = ("==", "==", "!=", "<", "<=", ">", ">=", ">", "<")
_BLANKS = ("", " ", " ", " ", "  ", "\t", "\n", "\r\n")
_TEXTS = ("'a'", '"a"', "'b'", r"'\''", r"'\u0061'", "''", r'"\n"')
_EDGES = ("'A'", "'B'", "'LONG_NAME'", '"quoted\\"name"', "'A'", r"'tab\t'")

_STRANGERS = ("&", "=", "|", ")", "(", ",", "5 ", " x ", "~", " < ", " !", "''", '"', "$", "-", "isNull")

# Where IEEE arithmetic, undefined results and the tolerance of equality show; V is a variable.
_CORNERS = (
    "V / 0 == 1e999",
    "1e999 != V / 0",
    "0 / V != 0 / V",
    "V / 0 - V / 0",
    "1 / custom_function('ceil', -custom_function('abs', V) / 1e300) < 0",
    "1 / (V * -0) < 0",
    "custom_function('pow', V, 1000) > 1",
    "custom_function('pow', V, .5) != 3",
    "custom_function('pow', V - V, -1) > 0",
    "custom_function('pow', 2, V / 0) >= 0",
    "custom_function('log', V, 8) != 3",
    "custom_function('log', 1, V) > 0",
    "custom_function('max', V / 0, V, 0 / 0) > 0",
    "custom_function('min', 0 / 0, 0 * V / 0) != 0",
    "V * 1e300 * 1e300 > 1e308",
    "V - 0.001 == V + 0.0005",
)


class Expressions:
    """Makes conditions over variables.  `values` has those that each variable takes, by its name as in the text."""

    def __init__(self, random: Random, values: Mapping[str, Sequence[float]]) -> None:
        self._random = random
        self._variables = list(values)
        self._of = values
        self._values = [value for some in values.values() for value in some] or [1.0]

    def any(self) -> str:
        """Return a condition of any kind."""
        random = self._random
        way = random.random()
        if way < 0.04:
            return random.choice(("true", "1", " ( true ) ", "false", "!false", "0/0"))
        if way < 0.07:
            return random.choice(_CORNERS).replace("V", self._variable())
        if way < 0.32:  # plain conditions fire most
            return self._comparison(0)
        if way < 0.40:
            return f"{self._comparison(0)}{random.choice((' && ', ' || '))}{self._comparison(0)}"
        if way < 0.43:
            return f"{self._function(0)}{self._random.choice(_COMPARISONS)}{self._number()}"
        if way < 0.55:
            return self._edges(random.randint(0, 2))
        return self._condition(random.choice((1, 2, 2, 3, 4)))

    def _blank(self) -> str:
        return self._random.choice(_BLANKS)

    def _chain(self, signs: Sequence[str], operand: str, rest: Sequence[str]) -> str:
        text = operand
        for other in rest:
            text += f"{self._blank()}{self._random.choice(signs)}{self._blank()}{other}"
        return text

    def _more(self, share: float, budget: int) -> int:
        return self._random.randint(1, 2) if budget and self._random.random() < share else 0

    def _condition(self, budget: int) -> str:
        rest = [self._conjunction(budget - 1) for _ in range(self._more(0.2, budget))]
        return self._chain(("||",), self._conjunction(budget), rest)

    def _conjunction(self, budget: int) -> str:
        rest = [self._negation(budget - 1) for _ in range(self._more(0.2, budget))]
        return self._chain(("&&",), self._negation(budget), rest)

    def _negation(self, budget: int) -> str:
        marks = self._random.choice(("!", "!!", "! ")) if self._random.random() < 0.08 else ""
        return marks + self._comparison(budget)

    def _comparison(self, budget: int) -> str:
        if self._random.random() < 0.02:
            left, right = (self._random.choice(_TEXTS) for _ in range(2))
            return f"{left}{self._random.choice((' == ', '!=', '==', chr(43) + left + '=='))}{right}"
        if self._random.random() < 0.5:
            name = self._random.choice(self._variables)
            value = self._random.choice(self._of[name] or self._values) + self._random.choice(_JITTER)
            return f"$variable.`{name}`{self._blank()}{self._random.choice(_COMPARISONS)}{self._blank()}{value!r}"
        if self._random.random() < 0.3 and budget:
            return self._sum(budget)
        return self._chain(_COMPARISONS, self._sum(budget), [self._sum(max(budget - 1, 0))])

    def _sum(self, budget: int) -> str:
        rest = [self._product(budget - 1) for _ in range(self._more(0.15, budget))]
        return self._chain("+-", self._product(budget), rest)

    def _product(self, budget: int) -> str:
        rest = [self._unary(budget - 1) for _ in range(self._more(0.1, budget))]
        return self._chain("*/", self._unary(budget), rest)

    def _unary(self, budget: int) -> str:
        primary = self._primary(budget)
        minus = self._random.random() < 0.06 and not primary.startswith("-")
        return f"-{self._blank()}{primary}" if minus else primary

    def _primary(self, budget: int) -> str:
        way = self._random.random()
        if way < 0.5:
            return self._variable()
        if way < 0.78 or not budget:
            return self._number()
        if way < 0.81:
            return self._random.choice(("true", "false"))
        if way < 0.86:
            return f"isNull({self._blank()}{self._variable()}{self._blank()})"
        if way < 0.88:
            return self._edges(budget - 1)
        if way < 0.95:
            return self._function(budget - 1)
        return f"({self._blank()}{self._operand(budget - 1)}{self._blank()})"

    def _operand(self, budget: int) -> str:
        return self._sum(budget) if self._random.random() < 0.7 else self._condition(budget)

    def _variable(self) -> str:
        return f"$variable.`{self._random.choice(self._variables)}`"

    def _number(self) -> str:
        if self._random.random() < 0.3:
            return self._random.choice(_WHOLE)
        return repr(self._random.choice(self._values) + self._random.choice(_JITTER))

    def _function(self, budget: int) -> str:
        name = self._random.choice(("abs", "ceil", "floor", "min", "max", "pow", "log"))
        count = {"abs": 1, "ceil": 1, "floor": 1, "pow": 2, "log": 2}.get(name) or self._random.randint(2, 4)
        operands = "".join(f",{self._blank()}{self._operand(max(budget, 0))}" for _ in range(count))
        return f"custom_function('{name}'{operands}{self._blank()})"

    def _edges(self, budget: int) -> str:
        pairs = ""
        for _ in range(self._random.randint(1, 3)):
            condition = "$variable.`No.Such` > 1" if self._random.random() < 0.1 else self._condition(max(budget, 0))
            pairs += f", {self._random.choice(_EDGES)}, {condition}"
        return f"custom_function('MULTI_RISING_EDGE_TRIGGER'{pairs})"


def spoilt(random: Random, text: str) -> str:
    """Return an expression with one fault at a random place."""
    at = random.randint(0, len(text))
    way = random.random()
    if way < 0.4:
        thing = random.choice(
            ("&", "=", "|", ")", "(", ",", "5 ", " x ", "~", " < ", " !", "''", '"', "$", "-", "isNull")
        )
        return text[:at] + thing + text[at:]
    if way < 0.7 and len(text) > 1:
        return text[:at] + text[at + random.randint(1, 3) :] or "("
    return random.choice(
        (
            f"{text} && custom_function('sin', 1)",
            f"custom_function('abs', 1, 2) || {text}",
            f"{text} && custom_function('pow', 1)",
            f"{text} || custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', true, 'B')",
            f"{text} || 'a' > 1",
            f"{text} || 1 + 'a' == 2",
            f"({text}) && ('a' + 'b')",
            "'a' + 'b'",
            f"{text} < 1 < 2",
            "!" * 10 + f"({text})",
            f"{text} && $variable.`No.Such.Signal` > 1",
            f"isNull({text})",
            f"-(1 - -'a') > 0 && {text}",
            f"{text} && last_window_max($variable.`A.S`) > 1",
        )
    )
