"""Score a model on a folder of clean and noisy pairs, with intervals, by SNR, and under other gate policies.

A dynamic network must be compared with what costs the same. Beside the learned policy there are four that have its
mean activation (mean over the files, gates weighed by their MACs): see :data:`POLICIES`. Where they score like the
learned one, the policy has learnt nothing that a fixed smaller network could not do.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from csv import DictReader
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE, frame_count, stft
from dsn_lite.data.cache import default_folder, progress
from dsn_lite.errors import InputError
from dsn_lite.evaluation import dnsmos, metrics
from dsn_lite.evaluation.provenance import provenance, versions

METRICS = ("pesq", "stoi", "estoi", "si_sdr", "sig", "bak", "ovrl")
COSTS = ("mmacs_per_second", "activation")
POLICIES = {
    "learned": "the gates that the policy decides",
    "open": "every gate open",
    "closed": "every gate closed",
    "random": "each gate drawn anew each frame, open with the learned policy's mean rate of that gate",
    "frozen": "one fixed set of open gates: of the sets with the learned mean activation, the most used gates",
    "snr": (
        "an oracle that knows the SNR: one set of open gates an utterance, the more the lower its SNR (a falling, "
        "clipped line), the most used gates, with the learned mean activation"
    ),
    "energy": (
        "every gate open on the loud frames and closed on the others: one threshold for all files, in dB relative to the "
        "file's mean, with the learned mean activation"
    ),
}
"""Gate policies and what they do; the last four have the mean activation of the learned one."""
EQUAL = tuple(POLICIES)[3:]
WIDTH_POLICIES = {
    "learned": "the widths that the router decides",
    "open": "the widest width throughout",
    "closed": "the narrowest width throughout",
    "random": "the width of each segment drawn anew, with the learned router's mean rate of each width",
    "frozen": (
        "every file at the two constant widths whose costs lie next to the learned mean, each score interpolated between "
        "them at that cost"
    ),
}
"""The same for a network of widths; the last two have the learned mean MACs. A constant width is asked for as such."""

BOOTSTRAP = 2000
SNR_GROUPS = 12
_CACHE_RULES = 1  # raise it when a metric changes, so that cached scores are not used any more
_PACKAGES = ("torch", "numpy", "soundfile", "pesq", "pystoi", "onnxruntime", "speechmos")


@dataclass(frozen=True)
class Pair:
    """One noisy file and its clean original."""

    name: str
    clean: Path
    noisy: Path
    snr_db: float | None = None


class Identity:
    """The model that does nothing: scores the noisy input through the same path."""

    name = "noisy"
    gate_names: tuple[str, ...] = ()

    def enhance(self, wave: np.ndarray, sample_rate: int, *, budget: float | None = None, policy="learned"):
        """The wave as it is, at no cost."""
        return SimpleNamespace(wave=wave, gates=np.zeros((0, 0)), activation=np.nan, mmacs_per_second=0.0)


@dataclass(frozen=True)
class Plan:
    """Which gates a file gets.

    Those of the model itself (``policy``), one ``pattern`` [K], drawn with ``rates`` [K], or all on the frames whose level
    is over a ``threshold`` in dB (see :func:`frame_levels`). For a network of widths, whose gates are nested, ``rates`` are
    drawn at once for a segment of ``hold`` frames.
    """

    policy: str | float = "learned"
    budget: float | None = None
    pattern: np.ndarray | None = None
    rates: np.ndarray | None = None
    seed: int = 0
    threshold: float | None = None
    hold: int = 0

    def gates(self, name: str, noisy: np.ndarray, count: int) -> str | float | np.ndarray:
        """What ``model.enhance`` takes as ``policy`` for a file: a name, or float32 [T, K] for its ``count`` K of gates."""
        frames = frame_count(len(noisy))
        if self.pattern is not None:
            return np.tile(self.pattern.astype(np.float32), (frames, 1))
        if self.rates is not None:
            # Seeded by the file, not by its place in a queue: the same for any number of jobs.
            digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
            generator = np.random.default_rng(list(digest))
            if self.hold:  # one draw for all gates of a segment: a wider width has all the gates below it open
                draws = generator.random((-(-frames // self.hold), 1)).repeat(self.hold, axis=0)[:frames]
            else:
                draws = generator.random((frames, len(self.rates)))
            return (draws < self.rates).astype(np.float32)
        if self.threshold is not None:
            return np.repeat(frame_levels(noisy)[:, None] > self.threshold, count, axis=1).astype(np.float32)
        return self.policy


@dataclass
class _Decided:
    """What a model did on one file, without the wave: row of the table, sums for the statistics of the gates."""

    row: dict
    frames: int
    rates: np.ndarray
    digest: str = ""
    switches: np.ndarray = field(default_factory=lambda: np.zeros(0))


def pairs(folder: str | Path) -> tuple[list[Pair], list[str]]:
    """Find the pairs of a folder.

    Parameters
    ----------
    folder
        Holds ``clean/`` and ``noisy/`` with wav or flac files of the same names, and perhaps ``pairs.csv`` with the
        columns ``file`` and ``snr_db``.

    Returns
    -------
    tuple
        The pairs in the order of their names, and a line for each file that has no partner or is wrongly listed.

    Raises
    ------
    InputError
        There is not one pair, or ``pairs.csv`` lacks a column.
    """
    folder = Path(folder)
    names = {}
    for kind in ("clean", "noisy"):
        if not (folder / kind).is_dir():
            raise InputError(
                f"{folder}: has no folder {kind}/; put clean/ and noisy/ files of the same names into it"
            )
        names[kind] = {
            path.name
            for path in (folder / kind).iterdir()
            if path.suffix.lower() in (".wav", ".flac") and not path.name.startswith(".")
        }
    snr, errors = _listed_snr(folder / "pairs.csv")
    both = sorted(names["clean"] & names["noisy"])
    if not both:
        raise InputError(
            f"{folder}: holds no pair; give wav or flac files the same names in clean/ and noisy/"
        )
    for kind, other in (("clean", "noisy"), ("noisy", "clean")):
        errors += [
            f"{kind}/{name}: has no partner {other}/{name}; add it or remove the file"
            for name in sorted(names[kind] - names[other])
        ]
    known = names["clean"] | names["noisy"]
    errors += [
        f"pairs.csv: lists {name}, which is not there; add it or remove the row"
        for name in snr
        if name not in known
    ]
    found = [Pair(name, folder / "clean" / name, folder / "noisy" / name, snr.get(name)) for name in both]
    return found, errors


def _listed_snr(path: Path) -> tuple[dict[str, float | None], list[str]]:
    if not path.exists():
        return {}, []
    listed, errors = {}, []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = DictReader(file)
            if not {"file", "snr_db"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: lacks the columns file and snr_db; name them in its first line")
            for row in reader:
                value = None
                with suppress(ValueError, TypeError):
                    value = float(row["snr_db"])
                if value is None or not np.isfinite(value):
                    errors.append(
                        f"pairs.csv: the SNR {row['snr_db']!r} of {row['file']} is no number; write it in dB"
                    )
                    value = None
                listed[row["file"]] = value
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    return listed, errors


def evaluate(
    model,
    folder: str | Path,
    *,
    policy: str = "learned",
    budget: float | None = None,
    width: float | None = None,
    jobs: int | None = None,
    seed: int = 0,
) -> dict:
    """Score a model on every pair of a folder.

    Everything is scored at 16 kHz and on the mean of the channels; DNSMOS on the signal as it is, without levelling.
    The result depends on the files, the model, policy, budget, width and seed, not on ``jobs`` or the order of the files.

    Parameters
    ----------
    model
        A network with ``enhance`` and ``gate_names``, or :class:`Identity`.
    folder
        See :func:`pairs`.
    policy
        One of :data:`POLICIES`, or of :data:`WIDTH_POLICIES` for a network of widths.
    budget
        Mean activation asked of the learned policy, 0 to 1; the policies of equal activation follow it.
    width
        One constant width in place of a policy.
    jobs
        Processes, of one thread each; None: one for each core. The interpreter is started afresh in each, so a script
        that calls this with more than one job needs the usual ``if __name__ == "__main__":``.
    seed
        Of the random policy and of the bootstrap.

    Returns
    -------
    dict
        Ready for JSON. Means stand under their names (``pesq``), their 95 % bootstrap intervals under ``pesq_ci`` as
        [low, high], and ``missing`` counts the files on which a metric had no value (left out of its mean).
        Then ``noisy`` (the same for the input), ``by_snr`` (keys: dB), ``gates`` (by name: ``rate``, standard
        deviation over all frames, within and over utterances, and switches a second), ``utilisation`` (mean width, of a
        network of widths), ``spearman`` (rank correlation
        of activation with the SNR and with the input's OVRL), ``per_file``, ``errors`` (one line a file), and where
        it all comes from.

    Raises
    ------
    InputError
        Nothing can be scored: no pair, a missing package, or a policy that does not suit the model or the folder.
    """
    policies = WIDTH_POLICIES if _widths(model) else POLICIES
    _check(model, policy, policies, budget, width)
    found, errors = pairs(folder)
    metrics.require_packages()
    if policy == "snr" and any(pair.snr_db is None for pair in found):
        raise InputError(
            f"{folder}: the policy snr needs the SNR of every file; list them in pairs.csv (file,snr_db)"
        )
    if isinstance(model, torch.nn.Module):
        model = copy.deepcopy(model).cpu().eval()
    workers = _Workers(model, min(jobs or _cores(), len(found)))
    try:
        plans = dict.fromkeys([pair.name for pair in found], Plan(policy if width is None else width, budget))
        detail: dict = {}
        if policy in EQUAL:
            learned, failed = workers.map(partial(_decide, plan=Plan(budget=budget)), found, "learned gates")
            errors += failed
            found = [pair for pair in found if pair.name in learned]
            if found:
                plans, detail = _equal_activation(policy, model, found, learned, seed)
        done, failed = workers.map(partial(_score, plans=plans), found, f"{model.name}, {policy}")
        if policy == "frozen" and _widths(model):
            wider = dict.fromkeys(plans, Plan(policy=detail["between"][1]))
            found = [pair for pair in found if pair.name in done]
            above, more = workers.map(partial(_score, plans=wider), found, f"{model.name}, the wider one")
            failed += more
            done = {name: _between(done[name], above[name], detail["share_of_wider"]) for name in above}
    finally:
        workers.close()
    errors = [_relative(line, folder) for line in errors + failed]
    if not done:
        raise InputError("; ".join(errors) or f"{folder}: nothing to score")
    results = [done[name] for name in sorted(done)]
    return {
        "model": model.name,
        "policy": policy if width is None else "width",
        "policy_description": policies[policy] if width is None else f"the width {width:g} throughout",
        **detail,
        "budget": budget,
        **_summary([result.row for result in results], seed),
        "by_snr": _by_snr([result.row for result in results], seed),
        "gates": _gate_statistics(list(model.gate_names), results),
        "spearman": _correlations([result.row for result in results]),
        "errors": errors,
        "data_hash": hashlib.sha256("\n".join(result.digest for result in results).encode()).hexdigest()[:16],
        "seed": seed,
        **provenance(_PACKAGES),
        "per_file": [result.row for result in results],
    }


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


def _relative(line: str, folder: str | Path) -> str:
    return line.replace(f"{Path(folder)}{os.sep}", "")


# ------------------------------------------------------------------------------ gates of equal activation
def gate_shares(model) -> np.ndarray:
    """Share of each gate in the dynamic MACs, [K], sum 1: measured, by opening one gate at a time."""
    count = len(model.gate_names)
    gates = np.concatenate([np.zeros((1, count)), np.eye(count)]).astype(np.float32)
    wave = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
    gates = np.pad(gates, ((0, frame_count(len(wave)) - len(gates)), (0, 0)))
    macs = np.asarray(model.enhance(wave, SAMPLE_RATE, policy=gates).frame_mmacs, dtype=float)
    macs = macs[1 : count + 1] - macs[0]
    return macs / macs.sum()


def frozen_pattern(rates: np.ndarray, shares: np.ndarray, target: float) -> np.ndarray:
    """Open gates [K] of 0 and 1 whose activation is ``target``, the most used ones.

    Of all 2^K sets, those within 0.01 of the target (or, if there is none, of the closest one) are looked at, and the
    one whose gates the learned policy opens most (``rates`` [K] weighted by ``shares`` [K] of the MACs) is taken.

    Examples
    --------
    >>> frozen_pattern(np.array([0.2, 0.9, 0.6]), np.array([0.5, 0.3, 0.2]), 0.5)
    array([0., 1., 1.])
    """
    sets = (np.arange(2 ** len(rates))[:, None] >> np.arange(len(rates)) & 1).astype(float)
    distance = np.abs(sets @ shares - target)
    use = sets @ (shares * rates)
    return sets[np.argmax(np.where(distance <= max(0.01, distance.min() + 1e-9), use, -1))]


def snr_patterns(snr_db: np.ndarray, rates: np.ndarray, shares: np.ndarray, target: float) -> np.ndarray:
    """Open gates [N, K] of N utterances: activation falls with the SNR and has the mean ``target``.

    The wanted activation falls by 1 from the lowest to the highest SNR, moved up or down and clipped to 0..1 so that
    its mean is ``target``. A set of gates meets it only roughly; what is left over is passed on to the next utterance
    (in the order of the SNR), so that the mean is met.

    Examples
    --------
    >>> snr_patterns(np.array([0, 10, 20]), np.array([0.9, 0.1]), np.array([0.5, 0.5]), 0.5)
    array([[1., 1.],
           [1., 0.],
           [0., 0.]])
    """
    snr_db = np.asarray(snr_db, dtype=float)
    fall = (snr_db - snr_db.min()) / max(np.ptp(snr_db), 1e-9)
    low, high = 0.0, 2.0
    for _ in range(60):  # the mean grows with the offset: bisect
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle - fall, 0, 1).mean() < target else (low, middle)
    wanted = np.clip(high - fall, 0, 1)
    patterns, left_over = np.zeros((len(snr_db), len(rates))), 0.0
    for index in np.argsort(snr_db, kind="stable"):
        patterns[index] = frozen_pattern(rates, shares, wanted[index] + left_over)
        left_over += wanted[index] - patterns[index] @ shares
    return patterns


def frame_levels(wave: np.ndarray) -> np.ndarray:
    """Level [T] in dB of each frame of a wave [samples] at 16 kHz, relative to the mean power of all frames.

    Examples
    --------
    >>> levels = frame_levels(np.r_[np.zeros(8000), np.ones(8000)])
    >>> bool(levels[2] < -60), round(float(levels[-5]))
    (True, 3)
    """
    with torch.no_grad():
        powers = stft(torch.from_numpy(np.asarray(wave, dtype=np.float32))[None])[0].abs().square().sum(-1).double()
    return (10 * torch.log10(powers / powers.mean().clamp_min(1e-20) + 1e-10)).numpy()


def energy_threshold(levels: Sequence[np.ndarray], target: float) -> float:
    """Threshold in dB over which a share ``target`` of the frames lies, as a mean over the files' levels [T].

    Examples
    --------
    >>> threshold = energy_threshold([np.arange(10.0), np.arange(10.0) + 5.5], 0.5)
    >>> float(np.mean([np.arange(10.0) > threshold, np.arange(10.0) + 5.5 > threshold]))
    0.5
    """
    low, high = min(level.min() for level in levels) - 1, max(level.max() for level in levels) + 1
    for _ in range(60):  # the share falls with the threshold: bisect
        middle = (low + high) / 2
        is_over = np.mean([(level > middle).mean() for level in levels]) > target
        low, high = (middle, high) if is_over else (low, middle)
    return float(high)


def _equal_activation(
    policy: str, model, found: Sequence[Pair], learned: dict[str, _Decided], seed: int
) -> tuple[dict[str, Plan], dict]:
    """Plan of each file under a policy of the learned mean activation, and what to say about it."""
    names = [pair.name for pair in found]
    rates = np.mean([learned[name].rates for name in names], axis=0)
    if _widths(model):
        return _equal_macs(policy, model, names, rates, seed)
    shares = gate_shares(model)
    target = float(rates @ shares)
    detail = {"target_activation": round(target, 6)}
    if policy == "random":
        return dict.fromkeys(names, Plan(rates=rates, seed=seed)), detail
    if policy == "frozen":
        pattern = frozen_pattern(rates, shares, target)
        opened = [name for name, is_open in zip(model.gate_names, pattern, strict=True) if is_open]
        return dict.fromkeys(names, Plan(pattern=pattern)), {**detail, "open_gates": opened}
    if policy == "energy":
        threshold = energy_threshold([frame_levels(read_pair(pair)[1]) for pair in found], target)
        return dict.fromkeys(names, Plan(threshold=threshold)), {**detail, "threshold_db": round(threshold, 3)}
    patterns = snr_patterns(np.array([pair.snr_db for pair in found]), rates, shares, target)
    return {name: Plan(pattern=pattern) for name, pattern in zip(names, patterns, strict=True)}, detail


def _equal_macs(
    policy: str, model, names: Sequence[str], rates: np.ndarray, seed: int
) -> tuple[dict[str, Plan], dict]:
    """The same for a network of widths: `rates` [K] of the thermometer's gates, and the mean MACs are kept."""
    costs = model.count().width_mmacs
    target = float(costs[0] + np.diff(costs) @ rates)
    detail: dict = {"target_mmacs_per_second": round(target, 6)}
    if policy == "random":
        return dict.fromkeys(names, Plan(rates=rates, seed=seed, hold=model.segment_frames)), detail
    below = int(np.clip(np.searchsorted(costs, target, side="right") - 1, 0, len(costs) - 2))
    share = float(np.clip((target - costs[below]) / (costs[below + 1] - costs[below]), 0, 1))
    between = _widths(model)[below : below + 2]
    detail |= {"between": list(between), "share_of_wider": round(share, 6)}
    return dict.fromkeys(names, Plan(policy=between[0])), detail


def _between(narrow: _Decided, wide: _Decided, share: float) -> _Decided:
    """A file whose every figure lies a `share` of the way from one constant width to the next."""

    def mix(a, b):
        if isinstance(a, list):
            return [mix(*pair) for pair in zip(a, b, strict=True)]
        return None if a is None or b is None else round((1 - share) * a + share * b, 6)

    changed = ("gate_rates", "utilisation", *METRICS, *COSTS)
    row = {**narrow.row, **{key: mix(narrow.row[key], wide.row[key]) for key in changed}}
    rates = (1 - share) * narrow.rates + share * wide.rates
    return _Decided(row, narrow.frames, rates, narrow.digest, narrow.switches)


# ------------------------------------------------------------------------------ one file
def _decide(pair: Pair, model, plan: Plan) -> _Decided:
    """The gates of one file, nothing scored."""
    _, noisy = read_pair(pair)
    return _enhance(pair, model, plan, noisy)[1]


def _score(pair: Pair, model, plans: dict[str, Plan]) -> _Decided:
    """The row of one file."""
    clean, noisy = read_pair(pair)
    wave, decided = _enhance(pair, model, plans[pair.name], noisy)
    digest = hashlib.sha256(pair.clean.read_bytes())
    digest.update(pair.noisy.read_bytes())
    decided.digest = f"{pair.name} {digest.hexdigest()} {pair.snr_db}"
    noisy_scores = _cached_scores(clean, noisy, digest.hexdigest())
    scores = noisy_scores if np.array_equal(wave, noisy) else score(clean, wave)
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


def score(clean: np.ndarray, wave: np.ndarray) -> dict[str, float | None]:
    """All metrics of one wave [samples] at 16 kHz, by the names in :data:`METRICS`; None where one has no value."""
    values = {
        "pesq": metrics.pesq_wb(clean, wave),
        "stoi": metrics.stoi(clean, wave),
        "estoi": metrics.stoi(clean, wave, extended=True),
        "si_sdr": metrics.si_sdr(clean, wave),
        **{name: value[0] for name, value in dnsmos.score(wave).items()},
    }
    return {name: None if np.isnan(value) else round(float(value), 6) for name, value in values.items()}


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy [samples] at 16 kHz, mean of the channels."""
    waves = []
    for path in (pair.clean, pair.noisy):
        sound = audio.read(path, strict=True)
        waves.append(audio.to_mono(audio.resample(sound.wave, sound.sample_rate, SAMPLE_RATE)))
    clean, noisy = waves
    if len(clean) != len(noisy):
        raise InputError(
            f"{pair.name}: clean has {len(clean)} samples at 16 kHz, noisy {len(noisy)}; cut them to the same length"
        )
    return clean, noisy


def _enhance(pair: Pair, model, plan: Plan, noisy: np.ndarray) -> tuple[np.ndarray, _Decided]:
    policy = plan.gates(pair.name, noisy, len(model.gate_names))
    result = model.enhance(noisy, SAMPLE_RATE, budget=plan.budget, policy=policy)
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
    return np.asarray(result.wave), _Decided(row, frames, gates.sum(axis=0) / frames, switches=switches)


def _cached_scores(clean: np.ndarray, noisy: np.ndarray, digest: str) -> dict:
    """Scores of the input, which every model on the same files shares, kept under the cache folder by content."""
    key = json.dumps([digest, _CACHE_RULES, versions(("pesq", "pystoi", "speechmos"))])
    path = default_folder() / "noisy" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        scores = json.loads(path.read_text())
        if set(scores) == set(METRICS):
            return scores
    scores = score(clean, noisy)
    with (
        suppress(InputError),
        audio.replacing(path) as temporary,
    ):  # a cache that cannot be written is no cache
        temporary.write_text(json.dumps(scores))
    return scores


# ------------------------------------------------------------------------------ several files at once
Task = Callable[..., _Decided]
_worker_model = None


def _start_worker(model) -> None:
    global _worker_model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, once and without noise
    torch.set_num_threads(1)
    _worker_model = model


def _guarded(task: Task, pair: Pair, model=None) -> _Decided | str:
    """The result of ``task``, or one line if the file is at fault."""
    try:
        return task(pair, _worker_model if model is None else model)
    except InputError as error:
        line = str(error)
        return line if pair.name in line else f"{pair.name}: {line}"


class _Workers:
    """Processes of one thread each that hold the model; one job runs in this process."""

    def __init__(self, model, jobs: int):
        self._model, self._jobs = model, jobs
        self._pool: ProcessPoolExecutor | None = None

    def map(self, task: Task, found: Sequence[Pair], text: str) -> tuple[dict[str, _Decided], list[str]]:
        """``task`` on each pair: results by name, and the error lines in the order of the names."""
        outcomes: dict[str, _Decided | str] = {}
        if self._jobs == 1:
            with _one_thread():
                for pair in progress(found, len(found), text):
                    outcomes[pair.name] = _guarded(task, pair, self._model)
        else:
            for pair in self._run(task, found, text, outcomes):
                # A process died and took its neighbours along: one at a time shows which file did it.
                if self._run(task, [pair], text, outcomes):
                    outcomes[pair.name] = (
                        f"{pair.name}: the process that scored it died (memory?); cut it or leave it out"
                    )
        done = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, _Decided)}
        return done, [line for _, line in sorted(outcomes.items()) if isinstance(line, str)]

    def _run(self, task: Task, found: Sequence[Pair], text: str, outcomes: dict) -> list[Pair]:
        """Fill ``outcomes`` from the pool; the pairs that were lost with a dead process come back."""
        lost = []
        with _one_thread_environment():
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._jobs, get_context("spawn"), initializer=_start_worker, initargs=(self._model,)
                )
            futures = {self._pool.submit(_guarded, task, pair): pair for pair in found}
            for future in progress(as_completed(futures), len(futures), text):
                try:
                    outcomes[futures[future].name] = future.result()
                except BrokenProcessPool:
                    lost.append(futures[future])
        if lost:
            self.close()
        return lost

    def close(self) -> None:
        """End the processes; the next task starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextmanager
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _one_thread_environment():
    """Variables that the numerical libraries of a new process read when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _cores() -> int:
    with suppress(AttributeError):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ------------------------------------------------------------------------------ statistics
def mean_ci(values: Iterable[float | None], *, seed: int = 0) -> tuple[float | None, list[float] | None, int]:
    """Mean, its 95 % percentile-bootstrap interval over the values, and how many values were missing (None or NaN).

    Examples
    --------
    >>> mean_ci([1.0, 1.0, None])
    (1.0, [1.0, 1.0], 1)
    """
    given = [np.nan if value is None else value for value in values]
    known = np.array([value for value in given if not np.isnan(value)], dtype=float)
    if not known.size:
        return None, None, len(given)
    picks = np.random.default_rng(seed).integers(0, known.size, (BOOTSTRAP, known.size))
    low, high = np.percentile(known[picks].mean(axis=1), (2.5, 97.5))
    return (
        round(float(known.mean()), 6),
        [round(float(low), 6), round(float(high), 6)],
        len(given) - known.size,
    )


def paired_difference(rows_a: Sequence[dict], rows_b: Sequence[dict], key: str, *, seed: int = 0) -> dict:
    """Mean of ``b - a`` over the files that both have, and its 95 % bootstrap interval, paired over files.

    Parameters
    ----------
    rows_a, rows_b
        ``per_file`` rows of two evaluations.
    key
        A column, such as ``pesq``.

    Returns
    -------
    dict
        ``difference``, ``difference_ci`` ([low, high]; zero outside it: the models differ), ``files``.

    Raises
    ------
    InputError
        The two have no file in common.

    Examples
    --------
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


def spearman(x: Sequence[float | None], y: Sequence[float | None]) -> float | None:
    """Rank correlation of the entries that both have, ties sharing their mean rank; None where it says nothing.

    Examples
    --------
    >>> spearman([1, 2, 3, None], [9, 4, 1, 5]), spearman([1, 1, 1], [1, 2, 3])
    (-1.0, None)
    """
    both = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    if len(both) < 3:
        return None
    ranks = [_ranks(np.array(column, dtype=float)) for column in zip(*both, strict=True)]
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return None
    return round(float(np.corrcoef(ranks)[0, 1]), 6)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def _means(rows: Sequence[dict], keys: Sequence[str], seed: int) -> dict:
    """``files``, then each mean with its interval, then what was missing."""
    summary: dict = {"files": len(rows)}
    missing = {}
    for key in keys:
        summary[key], summary[f"{key}_ci"], lacking = mean_ci((row[key] for row in rows), seed=seed)
        if lacking and key in METRICS:
            missing[key] = lacking
    return {**summary, "missing": missing}


def _summary(rows: Sequence[dict], seed: int) -> dict:
    noisy = _means([row["noisy"] for row in rows], METRICS, seed)
    costs = (*COSTS, "utilisation") if "utilisation" in rows[0] else COSTS
    return {**_means(rows, (*METRICS, *costs), seed), "noisy": noisy}


def _by_snr(rows: Sequence[dict], seed: int) -> dict[str, dict]:
    """A summary for each SNR in dB; where there are many, they are rounded to 5 dB."""
    with_snr = [row for row in rows if row["snr_db"] is not None]
    rounded = len({row["snr_db"] for row in with_snr}) > SNR_GROUPS
    groups: dict[float, list[dict]] = {}
    for row in with_snr:
        snr = 5.0 * round(row["snr_db"] / 5) if rounded else row["snr_db"]
        groups.setdefault(snr, []).append(row)
    return {f"{snr:g}": _summary(groups[snr], seed) for snr in sorted(groups)}


def _gate_statistics(names: Sequence[str], results: Sequence[_Decided]) -> dict[str, dict]:
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
        name: {column: round(float(values[index]), 6) for column, values in columns.items()}
        for index, name in enumerate(names)
    }


def _correlations(rows: Sequence[dict]) -> dict[str, float | None]:
    activation = [row["activation"] for row in rows]
    return {
        "activation_snr_db": spearman(activation, [row["snr_db"] for row in rows]),
        "activation_noisy_ovrl": spearman(activation, [row["noisy"]["ovrl"] for row in rows]),
    }
