"""Score a model on a folder of clean and noisy pairs, with intervals, by SNR, and under other gate policies.

A dynamic network must be compared with what costs the same: beside the learned policy stand those of rivals.py, which
have its mean activation (mean over the files, gates weighed by their MACs).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.data.cache import default_folder
from dsn_lite.errors import InputError
from dsn_lite.evaluation import dnsmos, metrics
from dsn_lite.evaluation.folders import Pair, pairs, read_pair
from dsn_lite.evaluation.provenance import provenance, versions
from dsn_lite.evaluation.rivals import EQUAL, POLICIES, WIDTH_POLICIES, Assignment, equal_activation
from dsn_lite.evaluation.statistics import METRICS, MOS, by_snr, correlations, gate_statistics, summary
from dsn_lite.evaluation.workers import Workers, cores

_CACHE_RULES = 1  # raise it when a metric changes, so that cached scores are not used any more
_PACKAGES = ("torch", "numpy", "soundfile", "pesq", "pystoi", "onnxruntime", "speechmos")


class Identity:
    """The model that does nothing: scores the noisy input through the same path."""

    name = "noisy"
    gate_names: tuple[str, ...] = ()

    def enhance(self, wave: np.ndarray, sample_rate: int, *, budget: float | None = None, policy="learned"):
        """The wave as it is, at no cost."""
        return SimpleNamespace(wave=wave, gates=np.zeros((0, 0)), activation=np.nan, mmacs_per_second=0.0)


@dataclass
class _Decided:
    """What a model did on one file, without the wave."""

    row: dict
    """Of the table."""
    frames: int
    rates: np.ndarray
    """Share of the frames on which each gate was open, [K]."""
    switches: np.ndarray
    """A second, [K]."""
    gates: np.ndarray | None
    """[T, K]; kept where they were asked for."""
    digest: str = ""
    """Of the name, the files and the SNR."""


def evaluate(
    model, folder: str | Path, *, policy: str = "learned", budget: float | None = None, width: float | None = None,
    mos: bool = True, jobs: int | None = None, seed: int = 0,
) -> dict:  # fmt: skip
    """Score a model on every pair of a folder, at 16 kHz, on the mean of the channels, DNSMOS without levelling.

    The result depends on the files, the model, policy, budget, width and seed, not on `jobs` or the order of the files.

    Parameters
    ----------
    model : a network with ``enhance`` and ``gate_names``, or :class:`Identity`
    folder : see :func:`~dsn_lite.evaluation.folders.pairs`
    policy : one of :data:`~dsn_lite.evaluation.rivals.POLICIES`, or of ``WIDTH_POLICIES`` for a network of widths
    budget : mean activation asked of the learned policy, 0 to 1; the policies of equal activation follow it
    width : one constant width in place of a policy
    mos : whether DNSMOS rates as well, which takes most of the time; else ``sig``, ``bak`` and ``ovrl`` are None
    jobs : processes, of one thread each; None: one a core. More than one needs ``if __name__ == "__main__":`` in a script
    seed : of the random policy and of the bootstrap

    Returns
    -------
    dict
        Ready for JSON: means (``pesq``), their 95 % bootstrap intervals (``pesq_ci``), ``missing`` (files on which a
        metric had no value); the same for the input (``noisy``) and each SNR (``by_snr``); ``gates`` (by name: rate,
        deviations, switches a second); ``spearman``; ``per_file``; ``errors`` (one line a file); and where it comes from.
    """
    policies = WIDTH_POLICIES if _widths(model) else POLICIES
    _check(model, policy, policies, budget, width)
    found, errors = pairs(folder)
    metrics.require_packages()
    if policy == "snr" and any(pair.snr_db is None for pair in found):
        raise InputError(f"{folder}: the policy snr needs the SNR of every file; list them in pairs.csv (file,snr_db)")
    model = copy.deepcopy(model).cpu().eval() if isinstance(model, torch.nn.Module) else model
    asked = Assignment(policy if width is None else width, budget)
    results, detail, failed = _score_all(model, found, asked, min(jobs or cores(), len(found)), seed, mos)
    errors = [line.replace(f"{Path(folder)}{os.sep}", "") for line in errors + failed]
    if not results:
        raise InputError("; ".join(errors) or f"{folder}: nothing to score")
    rows = [result.row for result in results]
    return {
        "model": model.name,
        "policy": policy if width is None else "width",
        "policy_description": policies[policy] if width is None else f"the width {width:g} throughout",
        **detail,
        "budget": budget,
        "mos": mos,
        **summary(rows, seed),
        "by_snr": by_snr(rows, seed),
        "gates": gate_statistics(list(model.gate_names), results),
        "spearman": correlations(rows),
        "errors": errors,
        "data_hash": hashlib.sha256("\n".join(result.digest for result in results).encode()).hexdigest()[:16],
        "seed": seed,
        **provenance(_PACKAGES),
        "per_file": rows,
    }


def _score_all(
    model, found: list[Pair], asked: Assignment, jobs: int, seed: int, mos: bool
) -> tuple[list[_Decided], dict, list[str]]:
    """Results by name, what to say about the policy, and a line for each file that failed."""
    workers, detail, errors = Workers(model, jobs), {}, []
    gates_of = dict.fromkeys([pair.name for pair in found], asked)
    try:
        if asked.policy in EQUAL:
            learned, errors = workers.map(partial(_decide, asked=Assignment(budget=asked.budget)), found, "learned gates")
            found = [pair for pair in found if pair.name in learned]
            if found:
                gates = {pair.name: learned[pair.name].gates for pair in found}
                gates_of, detail = equal_activation(str(asked.policy), model, found, gates, seed)
        done, failed = workers.map(partial(_score, gates_of=gates_of, mos=mos), found, f"{model.name}, {asked.policy}")
    finally:
        workers.close()
    return [done[name] for name in sorted(done)], detail, errors + failed


def _widths(model) -> tuple[float, ...]:
    """The widths of a network of widths; none of a network of gates."""
    return tuple(getattr(model, "widths", ()))


def _check(model, policy: str, policies: dict[str, str], budget: float | None, width: float | None) -> None:
    if policy not in policies:
        raise InputError(f"no policy {policy!r}; choose one of {', '.join(policies)}")
    if width is not None and width not in _widths(model):
        known = ", ".join(f"{each:g}" for each in _widths(model)) or "none"
        raise InputError(f"width {width:g}: not one of the widths of {model.name}, which are {known}")
    if width is not None and (policy != "learned" or budget is not None):
        raise InputError(f"width {width:g}: stands in place of policy and budget; leave them out")
    if policy != "learned" and not len(model.gate_names):
        raise InputError(f"the model {model.name} has no gates, so no policy {policy}; leave the policy out")
    if budget is not None and (policy in ("open", "closed") or not len(model.gate_names)):
        raise InputError(f"the model {model.name} with the policy {policy} takes no budget; leave it out")
    if budget is not None and not 0 <= budget <= 1:
        raise InputError(f"budget is {budget}; it must lie between 0 (closed) and 1 (open)")


def _decide(pair: Pair, model, asked: Assignment) -> _Decided:
    """The gates of one file, nothing scored."""
    _, noisy = read_pair(pair)
    return _enhance(pair, model, asked, noisy, keep=True)[1]


def _score(pair: Pair, model, gates_of: dict[str, Assignment], mos: bool) -> _Decided:
    """The row of one file."""
    clean, noisy = read_pair(pair)
    wave, decided = _enhance(pair, model, gates_of[pair.name], noisy)
    digest = hashlib.sha256(pair.clean.read_bytes())
    digest.update(pair.noisy.read_bytes())
    decided.digest = f"{pair.name} {digest.hexdigest()} {pair.snr_db}"
    noisy_scores = _cached_scores(clean, noisy, digest.hexdigest(), mos)
    scores = noisy_scores if np.array_equal(wave, noisy) else score(clean, wave, mos)
    decided.row = {
        "file": pair.name,
        "snr_db": pair.snr_db,
        "seconds": round(len(clean) / SAMPLE_RATE, 3),
        **scores,
        **decided.row,
        "gate_rates": [round(float(rate), 4) for rate in decided.rates],
        "noisy": noisy_scores,
    }
    return decided


def score(clean: np.ndarray, wave: np.ndarray, mos: bool = True) -> dict[str, float | None]:
    """All metrics of one wave [samples] at 16 kHz, by name (``statistics.METRICS``); None where one has no value.

    Without `mos` those of DNSMOS have none.
    """
    rated = {name: value[0] for name, value in dnsmos.score(wave).items()} if mos else dict.fromkeys(MOS, np.nan)
    values = {
        "pesq": metrics.pesq_wb(clean, wave),
        "stoi": metrics.stoi(clean, wave),
        "estoi": metrics.stoi(clean, wave, extended=True),
        "si_sdr": metrics.si_sdr(clean, wave),
        **rated,
    }
    return {name: None if np.isnan(value) else round(float(value), 6) for name, value in values.items()}


def _enhance(pair: Pair, model, asked: Assignment, noisy: np.ndarray, *, keep: bool = False) -> tuple[np.ndarray, _Decided]:
    """The enhanced wave [samples] of one file, and the rest."""
    policy = asked.gates(len(noisy), len(model.gate_names))
    result = model.enhance(noisy, SAMPLE_RATE, budget=asked.budget, policy=policy)
    gates = np.asarray(result.gates, dtype=float)
    frames = max(len(gates), 1)
    activation = float(result.activation)
    row = {
        "mmacs_per_second": round(float(result.mmacs_per_second), 6),
        "activation": round(activation, 6) if np.isfinite(activation) else None,
    }
    if _widths(model):
        row["utilisation"] = round(float(model.utilisation(gates).mean()), 6)
    switches = np.abs(np.diff(gates, axis=0)).sum(axis=0) * SAMPLE_RATE / max(len(noisy), 1)
    kept = gates.astype(np.uint8) if keep else None
    return np.asarray(result.wave), _Decided(row, frames, gates.sum(axis=0) / frames, switches, kept)


def _cached_scores(clean: np.ndarray, noisy: np.ndarray, digest: str, mos: bool) -> dict:
    """Scores of the input, which every model on the same files shares; complete ones are kept in the cache by content."""
    key = json.dumps([digest, _CACHE_RULES, versions(("pesq", "pystoi", "speechmos"))])
    path = default_folder() / "noisy" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        scores = json.loads(path.read_text())
        if set(scores) == set(METRICS):
            return scores
    if not mos:
        return score(clean, noisy, mos)
    scores = score(clean, noisy)
    with suppress(InputError), audio.replacing(path) as temporary:  # a cache that cannot be written is no cache
        temporary.write_text(json.dumps(scores))
    return scores
