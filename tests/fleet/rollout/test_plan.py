"""The options of `fleet rollout start` are read strictly."""

import pytest

from agent.errors import Permanent
from fleet.rollout.plan import parse_hold, parse_limit, parse_need, parse_stages


def test_options_are_read_as_the_help_shows_them() -> None:
    assert parse_stages("1,10,50,100") == (1.0, 10.0, 50.0, 100.0)
    assert parse_stages("0.01, 100%") == (0.01, 100.0)
    assert (parse_hold("24h"), parse_hold("1.5m"), parse_hold("2d"), parse_hold("0s")) == (86_400, 90, 172_800, 0)
    assert (parse_limit("failures>0.5%"), parse_limit("failures > 2")) == (0.5, 2.0)
    assert parse_need("50%") == 50.0


@pytest.mark.parametrize(
    "text", ["", "1,10", "10,1,100", "1,1,100", "0,100", "1,x,100", "1,,100", "101", "-1,100", "1;100", "nan,100"]
)
def test_wrong_stages_are_refused(text: str) -> None:
    with pytest.raises(Permanent, match="--stages"):
        parse_stages(text)


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "24 h", "1w", "1e3s", "inf"])
def test_a_wrong_time_is_refused(text: str) -> None:
    with pytest.raises(Permanent, match="write a number and one of s, m, h, d"):
        parse_hold(text)


@pytest.mark.parametrize("text", ["", "0.5%", "failures", "failures<1%", "failures>-1%", "failures>101%", "crashes>1%"])
def test_a_wrong_limit_is_refused(text: str) -> None:
    with pytest.raises(Permanent, match="--stop-if"):
        parse_limit(text)
