"""Gate policies that a learned one must beat: they cost the same, and know less.

Where they score like the learned one, the policy has learnt nothing that a fixed smaller network could not do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dsn_lite.audio.spectral import FRAMES_PER_SECOND, SAMPLE_RATE, frame_count, stft
from dsn_lite.evaluation.benefit import gain
from dsn_lite.evaluation.folders import Pair, read_pair

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
    "other": "the learned gates of another recording: the next one by name, from the beginning as often as is needed",
    "shifted": "the learned gates of the same recording, two seconds late; what is left over at the end comes first",
    "known": (
        "a ceiling that knows the clean speech: every gate open on the frames where opening gains most, one threshold for "
        "all files, with the learned mean activation"
    ),
}
"""Gate policies and what they do; those from `random` on have the mean activation of the learned one."""

EQUAL = tuple(POLICIES)[3:]
LATE = round(2 * FRAMES_PER_SECOND)
"""Frames by which `shifted` gates are late."""

WIDTH_POLICIES = {
    "learned": "the widths that the router decides",
    "open": "the widest width throughout",
    "closed": "the narrowest width throughout",
}
"""The same for a network of widths. Its rivals of equal cost are constant widths, each asked for as such."""


@dataclass(frozen=True)
class Plan:
    """Which gates a file gets.

    Those of the model itself (``policy``), one ``pattern`` [K], drawn with ``rates`` [K], all on the frames whose level
    is over a ``threshold`` in dB (see :func:`frame_levels`), or ``given`` [T, K].
    """

    policy: str | float = "learned"
    budget: float | None = None
    pattern: np.ndarray | None = None
    rates: np.ndarray | None = None
    seed: int = 0
    threshold: float | None = None
    given: np.ndarray | None = None

    def gates(self, name: str, noisy: np.ndarray, count: int) -> str | float | np.ndarray:
        """What ``model.enhance`` takes as ``policy`` for a file: a name, or float32 [T, K] for its ``count`` K of gates."""
        frames = frame_count(len(noisy))
        if self.pattern is not None:
            return np.tile(self.pattern.astype(np.float32), (frames, 1))
        if self.rates is not None:
            # Seeded by the file, not by its place in a queue: the same for any number of jobs.
            digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
            generator = np.random.default_rng(list(digest))
            return (generator.random((frames, len(self.rates))) < self.rates).astype(np.float32)
        if self.threshold is not None:
            return np.repeat(frame_levels(noisy)[:, None] > self.threshold, count, axis=1).astype(np.float32)
        if self.given is not None:
            return np.resize(self.given, (frames, count)).astype(np.float32)  # from the beginning again where it is short
        return self.policy


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

    >>> levels = frame_levels(np.r_[np.zeros(8000), np.ones(8000)])
    >>> bool(levels[2] < -60), round(float(levels[-5]))
    (True, 3)
    """
    with torch.no_grad():
        powers = stft(torch.from_numpy(np.asarray(wave, dtype=np.float32))[None])[0].abs().square().sum(-1).double()
    return (10 * torch.log10(powers / powers.mean().clamp_min(1e-20) + 1e-10)).numpy()


def energy_threshold(levels: Sequence[np.ndarray], target: float) -> float:
    """Threshold in dB over which a share ``target`` of the frames lies, as a mean over the files' levels [T].

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


def equal_activation(
    policy: str, model, found: Sequence[Pair], learned: Mapping[str, np.ndarray], seed: int
) -> tuple[dict[str, Plan], dict]:
    """Plan of each file under a policy with the mean activation of the `learned` gates [T, K], and what to say of it."""
    names = [pair.name for pair in found]
    rates = np.mean([learned[name].mean(axis=0) for name in names], axis=0)
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
    if policy == "other":
        return {name: Plan(given=learned[other]) for name, other in zip(names, names[1:] + names[:1], strict=True)}, detail
    if policy == "shifted":
        return {name: Plan(given=np.roll(learned[name], LATE, axis=0)) for name in names}, detail
    if policy == "known":
        gains = [opening_gain(model, pair) for pair in found]
        threshold = energy_threshold(gains, target)
        count = len(model.gate_names)
        opened = [np.repeat((gain > threshold)[:, None], count, axis=1) for gain in gains]
        return {name: Plan(given=gates) for name, gates in zip(names, opened, strict=True)}, detail
    patterns = snr_patterns(np.array([pair.snr_db for pair in found]), rates, shares, target)
    return {name: Plan(pattern=pattern) for name, pattern in zip(names, patterns, strict=True)}, detail


def opening_gain(model, pair: Pair) -> np.ndarray:
    """What opening everything gains [T] in each frame of a pair; see :func:`dsn_lite.evaluation.benefit.gain`."""
    clean, noisy = read_pair(pair)
    answers = (model.enhance(noisy, SAMPLE_RATE, policy=policy).wave for policy in ("open", "closed"))
    refined, small = (stft(torch.from_numpy(np.asarray(wave, dtype=np.float32))[None]) for wave in answers)
    return gain(refined, small, torch.from_numpy(clean.astype(np.float32))[None])[0].double().numpy()
