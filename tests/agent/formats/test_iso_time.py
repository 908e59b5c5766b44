import pytest

from agent.errors import Permanent
from agent.formats.iso_time import iso_of_ns, ns_of_iso


@pytest.mark.parametrize(
    ("text", "t_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-07-01T08:00:00.000001Z", 1_782_892_800_000_001_000),
        ("2026-07-01T10:00:00+02:00", 1_782_892_800_000_000_000),
        ("2026-07-01T08:00:00-00:30", 1_782_894_600_000_000_000),
    ],
)
def test_a_time_with_a_zone_is_read_to_the_microsecond_and_written_in_utc(text, t_ns):
    assert ns_of_iso(text, "x") == t_ns
    assert ns_of_iso(iso_of_ns(t_ns), "x") == t_ns
    assert iso_of_ns(t_ns).endswith("Z")


@pytest.mark.parametrize(
    ("text", "remedy"), [("yesterday", "not an ISO 8601 time"), ("2026-07-01T08:00:00", "append Z")]
)
def test_what_is_no_moment_is_refused_with_place_and_remedy(text, remedy):
    with pytest.raises(Permanent, match=f"agent.toml: start: .*{remedy}"):
        ns_of_iso(text, "agent.toml: start")
