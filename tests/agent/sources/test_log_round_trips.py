"""Independent programs of can-utils read and write the same frames, times and flags as the readers of text logs."""

import random
import shutil
import subprocess

import pytest
import zstandard

from tests import shared_data
from tests.agent.sources.written_log import Logged, read

NEEDED = ("asc2log", "log2asc")
pytestmark = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="can-utils is not installed")

START = 1_600_000_000
FD_LENGTHS = (0, 1, 7, 8, 12, 16, 20, 24, 32, 48, 64)


def drive(seed: int, frames: int = 400) -> str:
    """Return a candump log with frames of all kinds on two buses."""
    chance = random.Random(seed)
    lines = []
    for n in range(frames):
        extended = chance.random() < 0.4
        can_id = f"{chance.getrandbits(29):08X}" if extended else f"{chance.getrandbits(11):03X}"
        kind = chance.choice(["classic"] * 4 + ["fd", "remote", "error"])
        if kind == "classic":
            frame = f"{can_id}#{chance.randbytes(chance.randint(0, 8)).hex().upper()}"
        elif kind == "fd":
            data = chance.randbytes(chance.choice(FD_LENGTHS))
            frame = f"{can_id}##{chance.randrange(4)}{data.hex().upper()}"
        elif kind == "remote":
            frame = f"{can_id}#R{chance.choice(['', '1', '8'])}"
        else:
            frame = "20000088#0000000000000000"
        lines.append(f"({START + n * 7_919 // 10**6}.{n * 7_919 % 10**6:06}) can{chance.randrange(2)} {frame}")
    return "\n".join(lines) + "\n"


def tool(name, source, target, *arguments):
    subprocess.run([name, "-I", source, "-O", target, *arguments], check=True, capture_output=True, timeout=30)


def from_the_first(frames: list[Logged]) -> list[Logged]:
    """Return the frames with times since the first one.  The tools write and read dates without milliseconds."""
    return [frame._replace(t_us=frame.t_us - frames[0].t_us) for frame in frames]


def without_classes(frames):
    """Return the frames without what an ASC log cannot tell: the class and the data of an error frame."""
    return [frame._replace(can_id=0, data="") if "e" in frame.flags else frame for frame in frames]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [(), ("-f",), ("-n",)])
def test_what_log2asc_writes_is_the_same_log(tmp_path, seed, options):
    log, asc = tmp_path / "drive.log", tmp_path / "drive.asc"
    lines = drive(seed).splitlines(keepends=True)
    if options == ("-f",):  # log2asc -f writes error frames as data frames.
        lines = [line for line in lines if " 20000088#" not in line]
    log.write_text("".join(lines))
    tool("log2asc", log, asc, *options, "can0", "can1")
    expected = without_classes(read(log)[0])
    assert len(expected) == len(lines)
    assert {flag for frame in expected for flag in frame.flags} >= set("xfrbs")
    assert from_the_first(without_classes(read(asc)[0])) == from_the_first(expected)


@pytest.mark.parametrize("timestamps", ["absolute", "relative"])
@pytest.mark.parametrize("base", ["hex", "dec"])
def test_asc2log_reads_the_same_frames_and_steps_of_time(tmp_path, timestamps, base):
    asc, log = tmp_path / "drive.asc", tmp_path / "drive.log"
    chance = random.Random(9)
    lines, t_us = [f"base {base}  timestamps {timestamps}", "no internal events logged"], 0
    for n in range(300):
        step = chance.randrange(1, 400_000)
        t_us += step
        shown = t_us if timestamps == "absolute" else step
        data = chance.randbytes(chance.randint(0, 8))
        digits = " ".join(f"{byte:02X}" if base == "hex" else str(byte) for byte in data)
        can_id = chance.getrandbits(29)
        name = (f"{can_id:X}" if base == "hex" else str(can_id)) + "x"
        direction = "TxRq" if timestamps == "absolute" and n % 20 == 0 else "Rx"
        lines.append(
            f"{shown // 10**6:4}.{shown % 10**6:06} {n % 3 + 1}  {name:<12} {direction}   d {len(data)} {digits}"
        )
    asc.write_text("\n".join(lines) + "\n")
    tool("asc2log", asc, log)
    ours, theirs = read(asc)[0], read(log)[0]
    assert len(theirs) == (285 if timestamps == "absolute" else 300)

    assert from_the_first(ours) == from_the_first(theirs)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["can/ford_mustang_s550.log.zst", "canfd/css_fd_all_dlc.log.zst"])
def test_captures_are_the_same_after_log2asc(tmp_path, name):
    log, asc = tmp_path / "drive.log", tmp_path / "drive.asc"
    with zstandard.open(shared_data.require() / "open" / name, "rt") as text:
        lines = [line for line, _ in zip(text, range(5_000), strict=False)]
    log.write_text("".join(lines))
    buses = list(dict.fromkeys(line.split()[1] for line in lines))
    tool("log2asc", log, asc, *buses)
    numbered = {bus: f"can{number}" for number, bus in enumerate(buses)}
    expected = [frame._replace(bus=numbered[frame.bus]) for frame in read(log)[0]]
    assert len(expected) == len(lines)
    assert from_the_first(without_classes(read(asc)[0])) == from_the_first(without_classes(expected))
