"""The decoders of the benchmark give the same values, or the benchmark names the difference.  No test measures time."""

import numpy as np
import pytest

from bench.by_agent import AgentDecoder
from bench.by_asammdf import AsammdfDecoder
from bench.by_cantools import CantoolsDecoder
from bench.columns import Different, check_same
from bench.drives import demonstration
from bench.pipeline import Pipeline
from bench.sizes import entropy, json_zstd, protobuf_snappy
from bench.vehicle import write_candump


@pytest.fixture(scope="module")
def drive():
    return demonstration(seconds=12.0)


def test_every_decoder_gives_the_values_of_cantools(drive):
    expected = CantoolsDecoder(drive).columns()
    assert check_same(expected, AgentDecoder(drive, drive.windows(5)).columns(), "agent") > 10_000


def test_what_a_receiver_unpacks_is_what_cantools_gives(drive, tmp_path):
    pipeline = Pipeline(drive, drive.windows(5), tmp_path / "spool")
    try:
        assert check_same(CantoolsDecoder(drive).columns(), pipeline.columns(), "pipeline") > 10_000
    finally:
        pipeline.close()


def test_a_difference_is_told_with_the_signal():
    one = {("can0", "M", "S"): np.array([1.0, 2.0])}
    for other in ({("can0", "M", "S"): np.array([1.0, 3.0])}, {("can0", "M", "S"): np.array([1.0])}, {}):
        with pytest.raises(Different, match=r"can0\.M\.S"):
            check_same(one, other, "other")
    assert check_same({("b", "m", "s"): np.array([np.nan])}, {("b", "m", "s"): np.array([np.nan])}, "nan") == 1


def test_windows_hold_every_frame_once(drive):
    windows = drive.windows(5)
    assert len(windows) == 3
    assert np.array_equal(np.concatenate([w.t_ns for w in windows]), drive.block.t_ns)


def test_sizes_are_those_of_the_same_samples(drive, tmp_path):
    pipeline = Pipeline(drive, drive.windows(5), tmp_path / "spool")
    try:
        windows = pipeline.windows()
        samples, body, sealed = pipeline.sizes()
    finally:
        pipeline.close()
    assert samples == sum(window.samples for window in windows)
    assert entropy(windows) < body < sealed < json_zstd(windows) < 20 * samples
    assert body < protobuf_snappy(windows) < 20 * samples


def test_a_drive_as_a_log_reads_back_the_same(drive, tmp_path):
    from agent.sources.replay import read_blocks
    from can_dbc.frames import concatenate

    block = drive.block.slice(0, 2_000)
    write_candump(block, tmp_path / "drive.log")
    back = concatenate(list(read_blocks(tmp_path / "drive.log", channels=block.buses)))
    for column in ("t_ns", "bus", "can_id", "flags", "length", "data"):
        assert np.array_equal(getattr(back, column), getattr(block, column)), column


def test_asammdf_extracts_the_same_values_from_classic_frames(tmp_path):
    from bench.drives import recorded

    cars = [drive for drive in recorded() if "kona_2021" in drive.name]
    if not cars:
        pytest.skip("no recorded captures")
    found = AsammdfDecoder(cars[0], tmp_path).columns()
    assert check_same(CantoolsDecoder(cars[0]).columns(), found, "asammdf") > 10_000
