"""The picture holds a value until the next sample, and shows when the connection was away and what was done."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyarrow as pa
import pytest

from lab.demo.picture import Story, draw

SECOND_US = 1_000_000


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the figure of a drive of 20 s with one signal, before it is closed."""
    kept: list[Any] = []
    monkeypatch.setattr(plt, "close", kept.append)
    times = pa.array([n * 2 * SECOND_US for n in range(11)], pa.timestamp("us"))
    values = [float(n) for n in range(11)]
    columns = {"time": times, "bus": ["can0"] * 11, "signal": ["Gear"] * 11, "unit": [None] * 11, "value": values}
    marks = [(3 * SECOND_US, "push"), (15 * SECOND_US, "broker killed")]
    story = Story([(6 * SECOND_US, 10 * SECOND_US)], marks)
    assert draw(pa.table(columns), story, "a drive", tmp_path / "drive.png") == ["Gear"]
    assert (tmp_path / "drive.png").read_bytes().startswith(b"\x89PNG")
    return kept[0]


def test_a_value_holds_until_the_next_sample(drawn: Any) -> None:
    curve = drawn.axes[0].get_lines()[0]
    assert curve.get_drawstyle() == "steps-post"
    assert len(curve.get_ydata()) == 11


def test_the_outage_is_shaded_and_each_kill_and_push_has_its_line_and_word(drawn: Any) -> None:
    axis = drawn.axes[0]
    marks = [line.get_xdata()[0] * 86_400 for line in axis.get_lines()[1:]]
    assert marks == pytest.approx([3.0, 15.0])
    words = {text.get_text(): text.get_position()[0] * 86_400 for text in axis.texts}
    assert words["push"] == pytest.approx(3.0)
    assert words["broker killed"] == pytest.approx(15.0)
    assert words["no connection"] == pytest.approx(6.0)
