"""The short form of `make keys-drill`: every key of a running fleet is rotated, one vehicle being offline."""

from pathlib import Path

import pytest

from tests.keys.drill import Drill

pytestmark = pytest.mark.integration


@pytest.mark.timeout(400)  # a broker, a receiver and three agents share a busy machine
def test_every_key_is_rotated_without_a_lost_or_double_sample(tmp_path: Path) -> None:
    result = Drill(tmp_path, vehicles=3, offline=1, seconds=20, tell=print).run()
    assert result.samples_in_lake == result.samples_expected > 0
    assert (result.doubles, result.losses, result.certificates_renewed) == (0, 0, 3)
    assert result.passed
    assert result.versions["root"] == 2
