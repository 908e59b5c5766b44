"""Finds what a condition cannot mean: misused types, too deep nesting, and variables that can never be known."""

from collections.abc import Callable

from tests.conditions.language import EXPRESSION, Node, Refused

MOST_LEVELS = 10


def refuse_misuse(tree: Node) -> None:
    """Check types and depth.  Raises: Refused with the place."""
    faults = []
    try:
        if _is_text(tree):
            faults.append(Refused(EXPRESSION, "a condition is no text", tree.place))
    except Refused as misuse:
        faults.append(misuse)
    deep = _first_below(tree, MOST_LEVELS)
    if deep is not None:
        faults.append(Refused(EXPRESSION, f"more than {MOST_LEVELS} levels", deep.place))
    if faults:
        what = ", ".join(fault.what for fault in faults)
        raise Refused(EXPRESSION, what, *(place for fault in faults for place in fault.places))


def refuse_unknown(tree: Node, knows: Callable[[str], bool]) -> None:
    """Check that the condition can ever be defined.

    Raises: Refused with the places of the first unknown variable, and of the first one that makes it undefined.
    """
    if _never_defined(tree, knows):
        first = next(leaf for leaf in _leaves(tree) if not knows(leaf.name))
        raise Refused(EXPRESSION, f"no database has {first.name}", first.place, _cause(tree, knows).place)


def _is_text(node: Node) -> bool:
    """Return whether a node is a text, after a check of its operands."""
    texts = [_is_text(operand) for operand in node.operands]
    if node.kind == "text":
        return True
    if node.kind == "function" and node.name == "MULTI_RISING_EDGE_TRIGGER":
        wanted = [number % 2 == 0 for number in range(len(texts))]
    elif node.kind == "operator" and node.name in ("+", "==", "!=") and any(texts):
        if not all(texts):
            wrong = node.operands[texts.index(True)]
            raise Refused(EXPRESSION, "text against number", wrong.place)
        return node.name == "+"
    else:
        wanted = [False] * len(texts)
    for operand, text, want in zip(node.operands, texts, wanted, strict=True):
        if text != want:
            raise Refused(EXPRESSION, "wrong type", operand.place)
    return False


def _first_below(node: Node, levels: int) -> Node | None:
    if levels == 0:
        return node
    below = (_first_below(operand, levels - 1) for operand in node.operands)
    return next((found for found in below if found is not None), None)


def _never_defined(node: Node, knows: Callable[[str], bool]) -> bool:
    if node.kind in ("variable", "isNull"):
        return not knows(node.name)
    never = [_never_defined(operand, knows) for operand in node.operands]
    if node.name == "MULTI_RISING_EDGE_TRIGGER":
        return all(never[1::2])
    return any(never)


def _cause(node: Node, knows: Callable[[str], bool]) -> Node:
    """Return the first variable that makes `node`, which is never defined, undefined."""
    while node.operands:
        node = next(operand for operand in node.operands if _never_defined(operand, knows))
    return node


def _leaves(node: Node) -> list[Node]:
    if node.operands:
        return [leaf for operand in node.operands for leaf in _leaves(operand)]
    return [node] if node.kind in ("variable", "isNull") else []
