"""Parses a condition by operator precedence, with a stack in place of recursion.  Pure.

    condition  = conjunction , { "||" , conjunction } ;
    conjunction= negation , { "&&" , negation } ;
    negation   = { "!" } , comparison ;
    comparison = sum , [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) , sum ] ;
    sum        = product , { ( "+" | "-" ) , product } ;
    product    = unary , { ( "*" | "/" ) , unary } ;
    unary      = [ "-" ] , primary ;
    primary    = number | "true" | "false" | text | variable | function | "(" , condition , ")" ;
    function   = "isNull" , "(" , variable , ")"  |  "custom_function" , "(" , text , { "," , condition } , ")" ;

Parentheses may be nested a thousand times in a condition of legal length, and count nothing towards its depth.
Recursion would exhaust the stack of the interpreter.

The parser has two states.  Where an operand is expected, it takes a primary, a prefix operator or an opening
parenthesis.  After an operand, it takes an infix operator, a comma or a closing parenthesis.  Operators wait on the
stack until one comes that does not bind stronger.
"""

from dataclasses import dataclass
from typing import Final

from agent.formats.down.conditions.fault import ConditionFault
from agent.formats.down.conditions.functions import check_arity, check_name, is_window_function, window_function
from agent.formats.down.conditions.tokens import Token, TokenKind, tokens_of
from agent.formats.down.conditions.tree import IsNull, Literal, Node, Variable, operation

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_COMPARISON: Final = 4
_INFIX: Final = {"||": 1, "&&": 2, **dict.fromkeys(_COMPARISONS, _COMPARISON), "+": 5, "-": 5, "*": 6, "/": 6}
_NOT: Final = 3
_MINUS: Final = 7
_GROUP: Final = 0


@dataclass(slots=True)
class _Waiting:
    """An operator that waits for its right operand, or an open parenthesis (`strength` is _GROUP).

    `call` is the name of the function if the parenthesis belongs to one, and `operands` has its operands so far.
    """

    token: Token
    strength: int
    call: Token | None = None
    operands: list[Node] | None = None

    @property
    def is_prefix(self) -> bool:
        return self.strength in (_NOT, _MINUS)


def parse(text: str) -> Node:
    """Return the tree of the condition `text`.  Types and depth are not checked yet.

    Raises: ConditionFault with the place of the first token that cannot stand there, or of the function that is wrong.
    """
    return _Parser(tokens_of(text)).parse()


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._waiting: list[_Waiting] = []
        self._operands: list[Node] = []

    def parse(self) -> Node:
        while True:
            self._operand()
            if self._after_operand():
                return self._operands[0]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind is TokenKind.FAULT:
            raise ConditionFault(token.place, token.text)
        self._at += token.kind is not TokenKind.END
        return token

    def _follows(self, symbol: str) -> bool:
        token = self._tokens[self._at]
        return token.kind is TokenKind.SYMBOL and token.text == symbol

    def _expect(self, symbol: str, why: str) -> None:
        if not self._follows(symbol):
            raise _unexpected(self._tokens[self._at], why)
        self._next()

    def _operand(self) -> None:
        """Take prefix operators and opening parentheses, and then one primary."""
        while True:
            token = self._next()
            if token.kind is TokenKind.SYMBOL and token.text == "!":
                self._not(token)
            elif token.kind is TokenKind.SYMBOL and token.text == "-":
                if self._minus(token):
                    return
            elif token.kind is TokenKind.SYMBOL and token.text == "(":
                self._waiting.append(_Waiting(token, _GROUP))
            elif token.kind is TokenKind.WORD and token.text == "custom_function":
                if self._call(token):
                    return
            else:
                self._operands.append(self._primary(token))
                return

    def _not(self, token: Token) -> None:
        top = self._waiting[-1].strength if self._waiting else _GROUP
        if top > _NOT:
            raise ConditionFault(
                token.place,
                f"'!' cannot follow {self._waiting[-1].token.text!r}: put it and its operand in parentheses",
            )
        self._waiting.append(_Waiting(token, _NOT))

    def _minus(self, token: Token) -> bool:
        """Take a minus sign.  Return whether it belongs to a number, which then is the operand."""
        if self._waiting and self._waiting[-1].strength == _MINUS:
            raise ConditionFault(token.place, "a second '-' cannot follow a '-': use parentheses")
        if self._tokens[self._at].kind is TokenKind.NUMBER:
            self._operands.append(Literal(-float(self._next().text), token.place))
            return True
        self._waiting.append(_Waiting(token, _MINUS))
        return False

    def _call(self, token: Token) -> bool:
        """Take the beginning of a call.  Return whether the call ends already, because it has no operands."""
        self._expect("(", "custom_function needs '(' and the name of the function")
        name = self._next()
        if name.kind is not TokenKind.TEXT:
            raise _unexpected(name, "custom_function begins with the name of the function as a text")
        check_name(name.text, name.place)
        if self._follows(","):
            self._next()
            self._waiting.append(_Waiting(token, _GROUP, name, []))
            return False
        self._expect(")", "',' or ')' must follow the name of the function")
        check_arity(name.text, 0, name.place)
        raise AssertionError("There is no function without operands.")

    def _primary(self, token: Token) -> Node:
        if token.kind is TokenKind.NUMBER:
            return Literal(float(token.text), token.place)
        if token.kind is TokenKind.TEXT:
            return Literal(token.text, token.place)
        if token.kind is TokenKind.VARIABLE:
            return Variable(token.text, token.place)
        if token.kind is TokenKind.WORD:
            return self._word(token)
        raise _unexpected(token, "a number, a text, a variable, a function or '(' must stand here")

    def _word(self, token: Token) -> Node:
        if token.text in ("true", "false"):
            return Literal(token.text == "true", token.place)
        if token.text == "isNull":
            self._expect("(", "isNull needs '(' and a variable")
            variable = self._next()
            if variable.kind is not TokenKind.VARIABLE:
                raise _unexpected(variable, "isNull takes one variable, and nothing else")
            self._expect(")", "isNull takes one variable, and nothing else")
            return IsNull(Variable(variable.text, variable.place), token.place)
        if is_window_function(token.text):
            raise ConditionFault(token.place, window_function(token.text))
        raise ConditionFault(
            token.place,
            f"{token.text!r} is unknown: a signal is written $variable.`Vehicle.Message.Signal`, "
            "and a function custom_function('name', ...)",
        )

    def _after_operand(self) -> bool:
        """Take closing parentheses, and then an infix operator or a comma.  Return whether the condition ends."""
        while True:
            token = self._next()
            strength = _INFIX.get(token.text) if token.kind is TokenKind.SYMBOL else None
            if strength is not None:
                self._infix(token, strength)
                return False
            if token.kind is TokenKind.SYMBOL and token.text in ("!", "("):
                raise ConditionFault(token.place, f"an operator must stand before {token.text!r}")
            self._reduce(_GROUP)
            opened = self._waiting[-1] if self._waiting else None
            if token.kind is TokenKind.END:
                if opened is not None:
                    raise ConditionFault(token.place, "')' is missing: the expression ends")
                return True
            if token.kind is TokenKind.SYMBOL and opened is not None:
                if token.text == ")":
                    self._close(self._waiting.pop())
                    continue
                if opened.operands is not None:
                    opened.operands.append(self._operands.pop())
                    return False
            raise _unexpected(
                token, "an operator must stand here" if opened is None else "an operator or ')' must stand here"
            )

    def _infix(self, token: Token, strength: int) -> None:
        self._reduce(strength)
        if strength == _COMPARISON and self._waiting and self._waiting[-1].strength == _COMPARISON:
            raise ConditionFault(
                token.place, "comparisons do not chain: join two comparisons by &&, or use parentheses"
            )
        self._waiting.append(_Waiting(token, strength))

    def _reduce(self, strength: int) -> None:
        """Apply the waiting operators that bind at least as strongly as `strength`, up to the open parenthesis."""
        # Two comparisons do not group, so the earlier one stays and is found by the caller.
        while (
            self._waiting
            and self._waiting[-1].strength >= max(strength, _GROUP + 1)
            and not (strength == _COMPARISON == self._waiting[-1].strength)
        ):
            waiting = self._waiting.pop()
            right = self._operands.pop()
            if waiting.strength == _NOT:
                made = operation("!", (right,), waiting.token.place)
            elif waiting.strength == _MINUS:
                made = operation("-", (Literal(0.0, waiting.token.place), right), waiting.token.place)
            else:
                left = self._operands.pop()
                made = operation(waiting.token.text, (left, right), left.place)
            self._operands.append(made)

    def _close(self, opened: _Waiting) -> None:
        """End a parenthesis; if it belongs to a call, make the call an operand."""
        if opened.call is None or opened.operands is None:
            return
        operands = [*opened.operands, self._operands.pop()]
        check_arity(opened.call.text, len(operands), opened.call.place)
        self._operands.append(operation(opened.call.text, operands, opened.token.place))


def _unexpected(token: Token, why: str) -> ConditionFault:
    if token.kind is TokenKind.FAULT:
        return ConditionFault(token.place, token.text)
    found = "the expression ends" if token.kind is TokenKind.END else f"found {token.text!r}"
    return ConditionFault(token.place, f"{why}: {found}")
