"""The language of conditions: what it means, and that each refusal names the place."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.campaign import parse_campaign
from agent.formats.down.conditions.condition import read_condition
from agent.formats.down.conditions.fault import ConditionFault
from agent.formats.down.conditions.tree import IsNull, Literal, Variable, undefined_forever, variables
from tests import shared_data

A, B = "$variable.`A.a`", "$variable.`B.b`"


def written(node):
    """Return a tree with all parentheses, so that precedence shows."""
    if isinstance(node, Literal):
        return repr(node.value) if isinstance(node.value, str) else f"{node.value:g}"
    if isinstance(node, Variable):
        return node.name
    if isinstance(node, IsNull):
        return f"isNull({node.variable.name})"
    return f"({node.name} {' '.join(map(written, node.operands))})"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3 - 4", "(- (+ 1 (* 2 3)) 4)"),
        ("12 / 2 / 3", "(/ (/ 12 2) 3)"),
        ("1 < 2 && 3 >= 4 || 5 != 6 && 7 == 8", "(|| (&& (< 1 2) (>= 3 4)) (&& (!= 5 6) (== 7 8)))"),
        ("true || false || 1", "(|| (|| 1 0) 1)"),
        (f"!{A} > 5 && {B}", "(&& (! (> A.a 5)) B.b)"),
        ("!!1 == 2", "(! (! (== 1 2)))"),
        (f"-{A} * 2", "(* (- 0 A.a) 2)"),
        ("-5 * 2 - -3", "(- (* -5 2) -3)"),
        ("-(5)", "(- 0 5)"),
        ("1-1", "(- 1 1)"),
        (".5 + 1. + 2e3 + 4.5E-1", "(+ (+ (+ 0.5 1) 2000) 0.45)"),
        ("((1 + 2)) * 3", "(* (+ 1 2) 3)"),
        ("'a' + \"b\" == 'it\\'s'", '(== (+ \'a\' \'b\') "it\'s")'),
        (r"'\u00e4\n\\' == ''", r"(== 'ä\n\\' '')"),
        (r"'\ud83d\ude97' != ''", "(!= '🚗' '')"),
        (f"isNull({A}) && !isNull( {B} )", "(&& isNull(A.a) (! isNull(B.b)))"),
        (
            f"custom_function('max', 1, {A} > 2, custom_function('abs', -{B})) > 1",
            "(> (max 1 (> A.a 2) (abs (- 0 B.b))) 1)",
        ),
        (
            f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {A} > 1, 'B' + 'C', {B} || 1)",
            "(MULTI_RISING_EDGE_TRIGGER 'A' (> A.a 1) (+ 'B' 'C') (|| B.b 1))",
        ),
        ("\t1\r\n<\n2 ", "(< 1 2)"),
    ],
)  # fmt: skip
def test_operators_group_as_the_grammar_says(text, tree):
    assert written(read_condition(text)) == tree


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("1 +", 4, "the expression ends"),
        ("(1", 3, r"'\)' is missing"),
        ("1 > 2)", 6, "operator"),
        ("1 = 2", 3, "write =="),
        ("1 =< 2", 3, "write =="),
        ("1 === 2", 5, "write =="),
        ("1 & 2", 3, "bitwise"),
        ("1 | 2", 3, "bitwise"),
        ("1 ^ 2", 3, "bitwise"),
        ("~1", 1, "bitwise"),
        ("1 < 2 < 3", 7, "chain"),
        ("1 == 2 != 3", 8, "chain"),
        ("1 > !2", 5, "parentheses"),
        ("-!1", 2, "parentheses"),
        ("--1", 2, "parentheses"),
        ("1 2", 3, "operator"),
        ("5abc", 2, "operator"),
        ("1 (2)", 3, "operator"),
        ("1, 2", 2, "operator"),
        ("()", 2, "must stand here"),
        ("Engine.Speed > 1", 1, "variable"),
        ("$Engine.Speed > 1", 1, "variable"),
        ("$variable.`` > 1", 1, "1 to 150"),
        (f"$variable.`{'x' * 151}` > 1", 1, "1 to 150"),
        ("$variable.`a\nb` > 1", 1, "control"),
        ("1 > $variable.`a", 17, "ends"),
        ("'a", 3, "ends"),
        ("'a\\", 4, "ends"),
        (r"'ab\x' == ''", 4, "escape"),
        (r"1 && '\ud800' == ''", 6, "half"),
        ("True", 1, "unknown"),
        ("isnull(1)", 1, "unknown"),
        ("isNull(1)", 8, "one variable"),
        (f"isNull({A} + 1)", 24, "one variable"),
        (f"isNull({A}, {A})", 23, "one variable"),
        ("custom_function(1)", 17, "name of the function"),
        ("custom_function('abs', )", 24, "must stand here"),
        ("custom_function('abs')", 17, "abs takes one operand"),
        ("custom_function('abs', 1, 2)", 17, "abs takes one operand"),
        ("custom_function('min', 1)", 17, "two operands or more"),
        ("custom_function('pow', 1, 2, 3)", 17, "two operands"),
        ("custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', 1, 'B')", 17, "pairs"),
        ("custom_function('Abs', 1)", 17, "no function 'Abs'"),
        ("custom_function('python', 1)", 17, "'python' is not supported: no program"),
        ("custom_function('DTC_QUERY', 1)", 17, "'DTC_QUERY' is not supported"),
        ("custom_function('last_window_max', 1)", 17, "length of its window"),
        (f"prev_last_window_avg({A}) > 1", 1, "length of its window"),
        (f"{A} == 'Reverse'", 20, "text"),
        (f"'Reverse' != {A}", 1, "text"),
        ("1 < 'a'", 5, "text"),
        ("'a' < 'b'", 1, "text"),
        ("true && 'a'", 9, "text"),
        ("!'a'", 2, "text"),
        ("-'a'", 2, "text"),
        ("'a' + 1 == 2", 1, "text"),
        ("'a' + 'b'", 1, "is a text"),
        ("custom_function('abs', 'a')", 24, "text"),
        ("custom_function('MULTI_RISING_EDGE_TRIGGER', 1, 2)", 46, "must be a text"),
        ("custom_function('MULTI_RISING_EDGE_TRIGGER', 'a', 'b')", 51, "must not be a text"),
        ("1 # 2", 3, "no meaning"),
        ("1 2 # 'a", 3, "operator"),  # the first mistake counts
        ("Engine.Speed > 'a", 1, "variable"),
        ("custom_function('mean', 1 ~ 2)", 17, "no function 'mean'"),
        ("custom_function('abs' ~ 2)", 23, "bitwise"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_first_token_that_cannot_stand_there_or_the_operand(text, place, words):
    with pytest.raises(ConditionFault, match=words) as refused:
        read_condition(text)
    assert refused.value.place == place


def test_ten_levels_are_allowed_and_the_first_node_below_is_named():
    assert read_condition(" && ".join([A] * 10)).depth == 10
    with pytest.raises(ConditionFault, match="deeper than 10 levels") as refused:
        read_condition(f"{B} && (" + " && ".join([A] * 10) + ")")
    assert refused.value.place == len(f"{B} && (") + 1


@pytest.mark.parametrize("text", ["(" * 1_000 + "1" + ")" * 1_000, "!" * 2_000 + "1", "-(" * 600 + "1" + ")" * 600])
def test_nesting_of_any_depth_exhausts_no_stack(text):
    try:
        assert written(read_condition(text)) == "1"
    except ConditionFault as fault:
        assert "deeper" in fault.what


@settings(max_examples=500)
@given(st.text("()!-+*/<>=&|'\"\\`$.,eE10 abu", max_size=40) | st.text(max_size=40))
def test_any_text_is_accepted_or_refused_with_a_place_within_it(text):
    try:
        read_condition(text)
    except ConditionFault as fault:
        assert 1 <= fault.place <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "unknown", "named"),
    [
        (f"{A} > 1 && {B} > 1", "A.a B.b", 1),
        (f"{A} > 1 || {B} > 1", "B.b", 24),
        (f"isNull({B}) || true", "B.b", 8),
        (f"{A} > 1", "", None),
        (f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {A} > 1, 'B', {B} > 1)", "A.a", None),
        (f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {A} > 1, 'B', {B} > 1)", "A.a B.b", 51),
        (f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {A}, 'B', {B}) && {A} > 1", "A.a", 93),
    ],
)
def test_an_unknown_signal_counts_if_it_makes_the_condition_undefined_for_ever(text, unknown, named):
    found = undefined_forever(read_condition(text), frozenset(unknown.split()))
    assert (None if found is None else found.place) == named


def test_variables_are_listed_once_in_the_order_of_the_text():
    assert variables(read_condition(f"{B} > 1 && isNull({A}) || {B} < {A}")) == ("B.b", "A.a")


@pytest.mark.shared
def test_the_documents_to_be_refused_are_refused_with_field_and_place():
    folder = shared_data.require().parent / "cases" / "refused"
    for case in json.loads((folder / "cases.json").read_text())["documents"]:
        if case["needs_database"]:
            continue
        with pytest.raises(Permanent) as refused:
            parse_campaign((folder / case["document"]).read_bytes(), case["document"])
        message = str(refused.value)
        assert case["field"] in message, case["name"]
        assert all(word in message for word in case["must_contain"]), case["name"]
        if case["at"] is not None:
            assert isinstance(refused.value.__cause__, ConditionFault)
            assert case["at"][0] <= refused.value.__cause__.place <= case["at"][1], case["name"]
