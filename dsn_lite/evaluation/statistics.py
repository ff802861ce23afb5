"""Means with intervals, differences, rank correlations: what can be said about scores, and what is luck."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dsn_lite.errors import InputError

MOS = ("sig", "bak", "ovrl")
METRICS = ("pesq", "stoi", "estoi", "si_sdr", *MOS)
COSTS = ("mmacs_per_second", "activation")
BOOTSTRAP = 2000
SNR_GROUPS = 12


def mean_ci(values: Iterable[float | None], *, seed: int = 0) -> tuple[float | None, list[float] | None, int]:
    """Mean, its 95 % percentile-bootstrap interval over the values, and how many values were missing (None or NaN).

    >>> mean_ci([1.0, 1.0, None])
    (1.0, [1.0, 1.0], 1)
    """
    given = [np.nan if value is None else value for value in values]
    known = np.array([value for value in given if not np.isnan(value)], dtype=float)
    if not known.size:
        return None, None, len(given)
    picks = np.random.default_rng(seed).integers(0, known.size, (BOOTSTRAP, known.size))
    interval = np.percentile(known[picks].mean(axis=1), (2.5, 97.5))
    return round(float(known.mean()), 6), [round(float(end), 6) for end in interval], len(given) - known.size


def paired_difference(rows_a: Sequence[dict], rows_b: Sequence[dict], key: str, *, seed: int = 0) -> dict:
    """Mean of ``b - a`` over the files that both have, and its 95 % bootstrap interval, paired over files.

    The rows are the ``per_file`` of two evaluations, `key` is a column of them. Where zero lies outside of
    ``difference_ci``, the models differ.

    >>> a = [{"file": "1", "pesq": 1.5}, {"file": "2", "pesq": 3.0}]
    >>> b = [{"file": "2", "pesq": 3.25}, {"file": "1", "pesq": 1.75}]
    >>> paired_difference(a, b, "pesq")
    {'difference': 0.25, 'difference_ci': [0.25, 0.25], 'files': 2}
    """
    before, after = ({row["file"]: row.get(key) for row in rows} for rows in (rows_a, rows_b))
    both = [name for name in sorted(before) if before[name] is not None and after.get(name) is not None]
    if not both:
        raise InputError(f"no file has a {key} in both evaluations; compare evaluations of the same pairs")
    difference, interval, _ = mean_ci([after[name] - before[name] for name in both], seed=seed)
    return {"difference": difference, "difference_ci": interval, "files": len(both)}


def verdict(interval: Sequence[float]) -> str:
    """What the interval [low, high] of a difference says of the second against the first: better, worse or undecided.

    >>> verdict([0.1, 0.3]), verdict([-0.3, -0.1]), verdict([-0.1, 0.3])
    ('better', 'worse', 'undecided')
    """
    low, high = interval
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def spearman(x: Sequence[float | None], y: Sequence[float | None]) -> float | None:
    """Rank correlation of the entries that both have, ties sharing their mean rank; None where it says nothing.

    >>> spearman([1, 2, 3, None], [9, 4, 1, 5]), spearman([1, 1, 1], [1, 2, 3])
    (-1.0, None)
    """
    from scipy.stats import spearmanr

    both = np.array([pair for pair in zip(x, y, strict=True) if None not in pair], dtype=float)
    if len(both) < 3 or (np.ptp(both, axis=0) == 0).any():
        return None
    return round(float(spearmanr(both).statistic), 6)


def _means(rows: Sequence[dict], keys: Sequence[str], seed: int) -> dict:
    """``files``, then each mean with its interval, then of how many files a metric was missing."""
    means: dict = {}
    lacking = {}
    for key in keys:
        means[key], means[f"{key}_ci"], lacking[key] = mean_ci((row[key] for row in rows), seed=seed)
    return {"files": len(rows), **means, "missing": {key: n for key, n in lacking.items() if n and key in METRICS}}


def summary(rows: Sequence[dict], seed: int) -> dict:
    """Means of all metrics and costs over rows, and of the metrics of their inputs."""
    noisy = _means([row["noisy"] for row in rows], METRICS, seed)
    costs = (*COSTS, "utilisation") if "utilisation" in rows[0] else COSTS
    return {**_means(rows, (*METRICS, *costs), seed), "noisy": noisy}


def by_snr(rows: Sequence[dict], seed: int) -> dict[str, dict]:
    """A summary for each SNR in dB; where there are many, they are rounded to 5 dB."""
    with_snr = [row for row in rows if row["snr_db"] is not None]
    rounded = len({row["snr_db"] for row in with_snr}) > SNR_GROUPS
    groups: dict[float, list[dict]] = {}
    for row in with_snr:
        snr = 5.0 * round(row["snr_db"] / 5) if rounded else row["snr_db"]
        groups.setdefault(snr, []).append(row)
    return {f"{snr:g}": summary(groups[snr], seed) for snr in sorted(groups)}


def gate_statistics(names: Sequence[str], results: Sequence[Any]) -> dict[str, dict]:
    """Does each gate move? A rate of 0 or 1 and deviations of 0 are a collapsed policy."""
    if not names:
        return {}
    frames = np.array([result.frames for result in results])
    rates = np.stack([result.rates for result in results])  # [N, K]
    weights = frames / frames.sum()
    overall = np.clip(weights @ rates, 0, 1)  # rounding can leave the range
    columns = {
        "rate": rates.mean(axis=0),
        "std_frames": np.sqrt(overall * (1 - overall)),
        "std_within_utterance": np.sqrt(weights @ (rates * (1 - rates))),
        "std_utterances": rates.std(axis=0),
        "switches_per_second": np.mean([result.switches for result in results], axis=0),
    }
    return {
        name: {column: round(float(values[k]), 6) for column, values in columns.items()} for k, name in enumerate(names)
    }


def correlations(rows: Sequence[dict]) -> dict[str, float | None]:
    """Rank correlation of the activation with the SNR, and with the input's OVRL."""
    activation = [row["activation"] for row in rows]
    return {
        "activation_snr_db": spearman(activation, [row["snr_db"] for row in rows]),
        "activation_noisy_ovrl": spearman(activation, [row["noisy"]["ovrl"] for row in rows]),
    }
