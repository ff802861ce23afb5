"""How well a separator separates the fixed test mixtures, and what it spends: chosen widths beside static ones.

Chosen widths must be compared with what costs the same. Two rivals do: the *static* widths, interpolated between the two
whose MACs lie on both sides (as if one of them were taken at random, item by item), and *shuffled*, the very widths that
the gating module chose for an item, laid on its chunks in another order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.data.cache import progress
from dsn_lite.errors import InputError
from dsn_lite.evaluation.metrics import si_sdr
from dsn_lite.evaluation.statistics import mean_ci
from dsn_lite.plots import maps as figures
from dsn_lite.slimmable.separator.fixed import fixed_list, render_fixed
from dsn_lite.slimmable.separator.mixtures import CELLS, OVERLAPS, TALKING, activity, chunk_talkers

if TYPE_CHECKING:
    from dsn_lite.slimmable.separator.network import Separator

GROUPS = {
    "all": CELLS,
    **{kind: tuple(cell for cell in CELLS if cell[1] == (kind == "noisy")) for kind in ("clean", "noisy")},
    **{f"overlap {overlap:g}": ((overlap, False), (overlap, True)) for overlap in OVERLAPS},
    **{f"overlap {cell[0]:g} {'noisy' if cell[1] else 'clean'}": (cell,) for cell in CELLS},
}
"""Groups of mixtures by name, and the cells in each."""


def improvement(talkers: np.ndarray, sources: np.ndarray, mixture: np.ndarray) -> float:
    """SI-SDR improvement in dB over the mixture, mean of both talkers in the better order; waves [2, samples].

    >>> sources = np.random.default_rng(0).standard_normal((2, 4000))
    >>> improvement(sources[::-1], sources, sources.sum(0)) > 50
    True
    """
    straight, crossed = (
        np.mean([si_sdr(source, talker) for source, talker in zip(sources, order, strict=True)])
        for order in (talkers, talkers[::-1])
    )
    return float(max(straight, crossed) - np.mean([si_sdr(source, mixture) for source in sources]))


def interpolated(static: np.ndarray, costs: np.ndarray, mmacs: float) -> np.ndarray:
    """Values [N] at a cost of `mmacs` of static widths [W, N] that cost `costs` [W], rising."""
    at = np.interp(mmacs, costs, np.arange(len(costs)))
    low = min(int(at), len(costs) - 2)
    return (1 - at + low) * static[low] + (at - low) * static[low + 1]


def evaluate_separation(
    network: Separator, folder: str | Path, *, each: int = 30, budgets: Sequence[float] = (), seed: int = 0
) -> dict:
    """Score a separator on the fixed test mixtures of a folder of pairs.

    Parameters
    ----------
    folder : see :func:`dsn_lite.slimmable.separator.fixed.fixed_list`
    each : mixtures of each overlap, clean and noisy
    budgets : further operating points of the gating module
    seed : of the bootstrap and of the shuffling

    Returns
    -------
    dict
        Ready for JSON. ``policies`` has for each static width (``0.25``), ``learned``, ``learned-0.3`` (a budget) and
        ``shuffled``: the cost, ``groups`` (see :data:`GROUPS`) with the mean SI-SDR improvement and its 95 % bootstrap
        interval, and for chosen widths the mean paired differences to the full width, to the static widths at equal MACs
        and to the shuffled widths; ``by_talkers`` has utilisation and cost by what a chunk holds. ``per_file`` has a row
        for each mixture.
    """
    if each < 1:
        raise InputError(f"{each} mixtures of each kind; take at least 1")
    pairs = fixed_list(folder, each=each)
    widths = network.config.widths
    asked = {f"{width:g}": {"policy": float(width)} for width in widths} | {"learned": {}}
    asked |= {f"learned-{budget:g}": {"budget": budget} for budget in budgets}
    rows, digest = [], hashlib.sha256()
    chosen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, pair in enumerate(progress(pairs, len(pairs), network.name)):
        mixture, sources = render_fixed(folder, pair)
        digest.update(mixture.tobytes())
        talkers = chunk_talkers(activity(sources), network.chunks(len(mixture)), network.config.chunk)
        row: dict = {**asdict(pair), "noisy": pair.noise is not None, "seconds": round(len(mixture) / SAMPLE_RATE, 3)}
        for name, result in _results(network, mixture, asked, np.random.default_rng([seed, number])).items():
            gain = improvement(result.waves, sources, mixture)
            row[name] = {"improvement": round(gain, 4), "mmacs_per_second": round(result.mmacs_per_second, 4)}
            chosen.setdefault(name, []).append((result.widths, talkers))
        rows.append(row)
    costs = network.count().width_mmacs
    policies = {}
    for name in [*asked, "shuffled"]:
        policies[name] = {
            "mmacs_per_second": round(float(np.mean([row[name]["mmacs_per_second"] for row in rows])), 4),
            "groups": {
                label: _group([row for row in rows if (row["overlap"], row["noisy"]) in cells], name, widths, costs, seed)
                for label, cells in GROUPS.items()
            },
            "by_talkers": _by_talkers(chosen[name], np.array(widths), costs),
        }
    return {
        "model": network.name, "widths": list(widths), "width_mmacs": [round(float(cost), 4) for cost in costs],
        "policies": policies, "seed": seed, "data_hash": digest.hexdigest()[:16], "per_file": rows,
    }  # fmt: skip


def _results(network: Separator, mixture: np.ndarray, asked: dict[str, dict], rng: np.random.Generator) -> dict:
    """A mixture [samples] separated in each way asked for, and at the learned widths in another order."""
    found = {name: network.separate(mixture, SAMPLE_RATE, **how) for name, how in asked.items()}
    widths = found["learned"].widths
    return {**found, "shuffled": network.separate(mixture, SAMPLE_RATE, policy=widths[rng.permutation(len(widths))])}


def _group(rows: list[dict], name: str, widths: Sequence[float], costs: np.ndarray, seed: int) -> dict:
    def gains(policy: str) -> np.ndarray:
        return np.array([row[policy]["improvement"] for row in rows])

    def mean(values: Iterable[float], label: str) -> dict:
        value, interval, _ = mean_ci(values, seed=seed)
        return {label: value, f"{label}_ci": interval}

    mmacs = float(np.mean([row[name]["mmacs_per_second"] for row in rows]))
    group = {"files": len(rows), "mmacs_per_second": round(mmacs, 4), **mean(gains(name), "improvement")}
    if name.startswith("learned"):
        static = np.stack([gains(f"{width:g}") for width in widths])
        group |= mean(gains(name) - static[-1], "over_full")
        group |= mean(gains(name) - interpolated(static, costs, mmacs), "over_static")
        if name == "learned":
            group |= mean(gains(name) - gains("shuffled"), "over_shuffled")
    return group


def _by_talkers(chosen: list[tuple[np.ndarray, np.ndarray]], widths: np.ndarray, costs: np.ndarray) -> dict:
    """Mean width and cost of the chunks with no, one and two talkers."""
    used, talkers = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    spent = costs[np.searchsorted(widths, used)]
    return {
        name: {
            "chunks": int((talkers == number).sum()),
            "utilisation": round(float(used[talkers == number].mean()), 4),
            "mmacs_per_second": round(float(spent[talkers == number].mean()), 4),
        }
        for number, name in enumerate(TALKING)
        if (talkers == number).any()
    }


def draw_separation(results: dict, path: str | Path) -> None:
    """Draw SI-SDR improvement against MMAC/s, one panel for each overlap and noise."""
    from matplotlib.figure import Figure

    labels = list(GROUPS)[-len(CELLS) :]
    figure = Figure(figsize=(10.5, 6.4), dpi=130, layout="constrained")
    axes = figure.subplots(2, len(OVERLAPS), sharex=True)
    static = [f"{width:g}" for width in results["widths"]]
    learned = [name for name in results["policies"] if name.startswith("learned")]
    kinds = (("static widths", static, "o-", "0.55"), ("chosen widths", learned, "D-", "#123a63"),
             ("chosen, shuffled", ["shuffled"], "x", "#c4570a"))  # fmt: skip
    for panel, label in zip(axes.flat, labels, strict=True):
        for title, names, style, colour in kinds:
            groups = [results["policies"][name]["groups"][label] for name in names]
            groups.sort(key=lambda group: group["mmacs_per_second"])
            mmacs, values, low, high = np.array(
                [(group["mmacs_per_second"], group["improvement"], *group["improvement_ci"]) for group in groups]
            ).T
            panel.errorbar(
                mmacs, values, yerr=[values - low, high - values], fmt=style, color=colour, label=title, lw=1.4,
                elinewidth=0.7, capsize=2, ms=5,
            )  # fmt: skip
        panel.set_title(label, fontsize=10)
        panel.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("MMAC/s", fontsize=10)
    figure.supylabel("SI-SDR improvement, dB", fontsize=10)
    figures.save(figure, path)
