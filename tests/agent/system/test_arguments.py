"""Test which values the command line accepts, and that each refusal says what to write."""

import argparse
from pathlib import Path

import pytest

from agent.system.arguments import add_command, add_json, bus_and_file, positive, whole
from lab.demo.__main__ import _parser as demo_parser


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("007", 7), ("12", 12)])
def test_a_whole_number_in_range_is_read(text: str, number: int) -> None:
    assert whole(3, 12)(text) == number


@pytest.mark.parametrize("text", ["2", "13", "-3", "3.0", "1_0", " 5", "٣", "", "9" * 5000])
def test_anything_else_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"choose a whole number from 3 to 12$"):
        whole(3, 12)(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e6", "fast"])
def test_a_number_that_is_not_positive_is_refused(text: str) -> None:
    assert positive("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="choose a number above 0"):
        positive(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x.dbc", (None, Path("x.dbc"))),
        ("can0=x.dbc", ("can0", Path("x.dbc"))),
        ("can0=/data/a=b/x.dbc", ("can0", Path("/data/a=b/x.dbc"))),
        ("/data/a=b/x.dbc", (None, Path("/data/a=b/x.dbc"))),
        ("./a=b.dbc", (None, Path("./a=b.dbc"))),
    ],
)
def test_an_equals_sign_in_a_path_is_no_bus(text: str, found: tuple[str | None, Path]) -> None:
    assert bus_and_file(text) == found
    demo = demo_parser().parse_args(["--log", "drive.log", "--dbc", text])
    assert demo.dbc == [found]


@pytest.mark.parametrize("text", ["=x.dbc", "can0="])
def test_half_a_database_is_wrong_use(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not \[BUS=\]FILE"):
        bus_and_file(text)


def test_a_command_has_a_summary_a_description_and_an_example() -> None:
    program = argparse.ArgumentParser(prog="fleet")
    command = add_command(
        program.add_subparsers(), "ask", summary="ask it", description="Ask the lake.", example="fleet ask --json"
    )
    add_json(command)
    assert "ask it" in program.format_help()
    assert "Ask the lake." in command.format_help()
    assert command.format_help().endswith("example:\n  fleet ask --json\n")
    assert program.parse_args(["ask", "--json"]).json is True
