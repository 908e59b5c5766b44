"""Draws the figures of `build/bench.json` as one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """Draw the ratios to cantools, the bytes per sample, and the throughput by block size, into `file`."""
    figure, (ratios, sizes, blocks) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    names = list(figures["decode_ratio_cantools"])
    _bars(
        ratios,
        names,
        {
            "decode, 30 s": figures["decode_ratio_cantools"],
            "whole pipeline, 30 s": figures["pipeline_ratio_cantools"],
            "whole pipeline, 5 s": figures["pipeline_ratio_cantools_5s"],
        },
    )
    ratios.set_title("speed as a multiple of cantools' decoding")
    _bars(
        sizes,
        names,
        {
            "agent, 30 s": figures["bytes_per_sample"],
            "agent, 5 s": figures["bytes_per_sample_5s"],
            "entropy estimate, 30 s": figures["bytes_per_sample_entropy"],
            "JSON + zstd": figures["bytes_per_sample_json_zstd"],
            "protobuf rows + snappy": figures["bytes_per_sample_protobuf_snappy"],
        },
    )
    sizes.set_yscale("log")
    sizes.set_title("bytes per sample")
    for name, by_size in figures["block_sizes_all"].items():
        blocks.plot([int(size) for size in by_size], list(by_size.values()), marker="o", label=name)
    blocks.set_xscale("log")
    blocks.set_yscale("log")
    blocks.set_xlabel("frames per block")
    blocks.set_title("frames/s for one message of 8 signals")
    blocks.legend()
    blocks.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _bars(axes: Any, names: list[str], series: Mapping[str, Mapping[str, float]]) -> None:
    width = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        places = [place + number * width for place in range(len(names))]
        axes.bar(places, [values.get(name) or 0 for name in names], width, label=label)
    places = [place + 0.4 - width / 2 for place in range(len(names))]
    axes.set_xticks(places, [name.removeprefix("css_")[:26] for name in names], fontsize=8, rotation=25, ha="right")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    axes.grid(axis="y", alpha=0.3)
