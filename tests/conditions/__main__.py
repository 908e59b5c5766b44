"""Compare the agent's conditions with the slow evaluator on random triples, and write build/conditions.json.

The exit status is 1 if any triple differs.  Each difference is made small, and written to build/conditions/; commit it
under tests/conditions/failures/ with its correction.
"""

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from agent.system.arguments import whole
from tests.conditions.shrink import shrink
from tests.conditions.triples import TRIPLES_A_WORLD, play, random_triple

BUILD = Path(__file__).parents[2] / "build"
MOST_SHRUNK = 20
SHARE = 5 * TRIPLES_A_WORLD


class Played(NamedTuple):
    counts: Counter[str]
    differ: list[tuple[int, str]]


def play_share(seed: int, numbers: range) -> Played:
    """Play the triples `numbers`, and return the counts and the (number, difference) of those that differ."""
    counts: Counter[str] = Counter()
    differ = []
    for number in numbers:
        outcome = play(random_triple(seed, number))
        counts["refused"] += outcome.refused
        counts["triggers"] += outcome.triggers
        counts["samples"] += outcome.samples
        counts["with_triggers"] += outcome.triggers > 0
        if outcome.difference is not None:
            differ.append((number, outcome.difference))
    return Played(counts, differ)


def shares(seed: int, triples: int, jobs: int) -> Iterator[tuple[int, Played]]:
    """Play all triples in `jobs` processes, and yield the size and the result of each share."""
    ranges = [range(start, min(start + SHARE, triples)) for start in range(0, triples, SHARE)]
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {pool.submit(play_share, seed, numbers): len(numbers) for numbers in ranges}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def kinds(differ: list[tuple[int, str]]) -> list[int]:
    """Return the numbers of two triples of each kind of difference, told by its first words."""
    by_words: dict[str, list[int]] = {}
    for number, what in sorted(differ):
        by_words.setdefault(re.split(r"[:\d]", what)[0], []).append(number)
    return sorted(number for numbers in by_words.values() for number in numbers[:2])


def write_failure(seed: int, number: int, folder: Path) -> Path:
    """Make a triple that differs small, and write it."""
    small = shrink(random_triple(seed, number), lambda triple: play(triple).difference is not None)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}-{number}.json"
    path.write_text(small.to_json())
    print(f"triple {number}, made small: {play(small).difference}\n  {path}", flush=True)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conditions", description=__doc__)
    parser.add_argument("--triples", type=whole(1, 10**9), default=10_000, metavar="N", help="(%(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**32), default=1, metavar="S", help="of all triples (%(default)s)")
    parser.add_argument("--jobs", type=whole(1, 1_000), default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--out", type=Path, default=BUILD / "conditions.json", help="report (%(default)s)")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.triples:,} triples", flush=True)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    differ: list[tuple[int, str]] = []
    played = 0
    for size, share in shares(options.seed, options.triples, options.jobs):
        played += size
        counts.update(share.counts)
        differ += share.differ
        seconds = time.monotonic() - started
        print(
            f"{played:>9,} triples, {len(differ)} differ, {counts['refused']:,} refused, {counts['triggers']:,} "
            f"triggers, {counts['samples']:,} samples, {played / seconds:,.0f} triples/s",
            flush=True,
        )
    report = {
        "triples": played,
        "seed": options.seed,
        "differ": len(differ),
        "refused": counts["refused"],
        "with_triggers": counts["with_triggers"],
        "triggers": counts["triggers"],
        "samples": counts["samples"],
        "seconds": round(time.monotonic() - started, 1),
        "differences": [{"triple": number, "what": what} for number, what in sorted(differ)[:MOST_SHRUNK]],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    for number in kinds(differ)[:MOST_SHRUNK]:
        write_failure(options.seed, number, options.out.parent / "conditions")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
