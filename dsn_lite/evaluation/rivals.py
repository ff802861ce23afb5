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
from dsn_lite.evaluation.metrics import si_sdr

POLICIES = {
    "learned": "the gates that the policy decides",
    "open": "every gate open",
    "closed": "every gate closed",
    "random": "in each frame the gates that the policy decided for a frame of some recording, drawn anew each time",
    "frozen": (
        "one fixed set of open gates: of the empty one and all that cost no more and have no room for another gate, the "
        "one with the highest SI-SDR on 24 of the recordings, known afterwards"
    ),
    "snr": (
        "an oracle that knows the SNR: every gate open in the noisiest recordings and closed in the others, with the "
        "learned mean activation"
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
LOOKED_AT = 24
"""Recordings on which the fixed set is chosen."""

WIDTH_POLICIES = {
    "learned": "the widths that the router decides",
    "open": "the widest width throughout",
    "closed": "the narrowest width throughout",
}
"""The same for a network of widths. Its rivals of equal cost are constant widths, each asked for as such."""


@dataclass(frozen=True)
class Assignment:
    """Which gates a recording gets: those of the model itself (``policy``, at a ``budget``), or ``given`` ones [T, K]."""

    policy: str | float = "learned"
    budget: float | None = None
    given: np.ndarray | None = None

    def gates(self, samples: int, count: int) -> str | float | np.ndarray:
        """What ``model.enhance`` takes as ``policy`` for so many samples: a name, or float32 [T, K], K being ``count``."""
        if self.given is None:
            return self.policy
        # From the beginning again where it is short.
        return np.resize(self.given, (frame_count(samples), count)).astype(np.float32)


def gate_shares(model) -> np.ndarray:
    """Share of each gate in the dynamic MACs, [K], sum 1: measured, by opening one gate at a time."""
    count = len(model.gate_names)
    gates = np.concatenate([np.zeros((1, count)), np.eye(count)]).astype(np.float32)
    wave = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
    gates = np.pad(gates, ((0, frame_count(len(wave)) - len(gates)), (0, 0)))
    macs = np.asarray(model.enhance(wave, SAMPLE_RATE, policy=gates).frame_mmacs, dtype=float)
    macs = macs[1 : count + 1] - macs[0]
    return macs / macs.sum()


def fixed_sets(shares: np.ndarray, target: float) -> np.ndarray:
    """Sets of open gates [N, K] of 0 and 1 that cost no more than ``target``, and have no room for another gate.

    They may lie 0.02 above it: the doubt is theirs. The first one is empty. ``shares`` [K]: of the gates in the MACs.

    >>> fixed_sets(np.array([0.5, 0.3, 0.2]), 0.5)
    array([[0., 0., 0.],
           [1., 0., 0.],
           [0., 1., 1.]])
    """
    sets = (np.arange(2 ** len(shares))[:, None] >> np.arange(len(shares)) & 1).astype(float)
    room = target + 0.02 - sets @ shares
    is_full = (room >= 0) & ((sets > 0) | (shares > room[:, None])).all(1)
    is_full[0] = True
    return sets[is_full]


def best_set(model, sets: np.ndarray, recordings: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The one of some sets of gates [N, K] with the highest mean SI-SDR on (clean, noisy) at 16 kHz: [K].

    The first of those that are equal.
    """
    scores = [np.mean([si_sdr(clean, _answer(model, noisy, gates)) for clean, noisy in recordings]) for gates in sets]
    return sets[int(np.argmax(scores))]


def drawn_gates(learned: Sequence[np.ndarray], frames: int, name: str, seed: int = 0) -> np.ndarray:
    """Gates [frames, K], each row one of the learned gates [T, K] of all recordings: what opens together still does.

    Seeded by the `name` of the recording, not by its place in a queue: the same for any number of jobs.

    >>> drawn_gates([np.zeros((9, 2)), np.ones((3, 2))], 400, "a").mean() < 0.4
    np.True_
    """
    generator = np.random.default_rng(list(hashlib.sha256(f"{seed} {name}".encode()).digest()))
    rows = np.concatenate(list(learned))
    return rows[generator.integers(len(rows), size=frames)]


def snr_opened(snr_db: np.ndarray, frames: Sequence[int], target: float) -> list[np.ndarray]:
    """Which frames [T] of each recording are open: all of the noisiest ones, until the mean activation is the ``target``.

    The recording in which it is reached is open at its beginning alone.

    >>> [int(opened.sum()) for opened in snr_opened(np.array([0, 10, 20]), [10, 10, 10], 0.5)]
    [10, 5, 0]
    """
    opened, left = [np.zeros(count, bool) for count in frames], target * len(frames)
    for index in np.argsort(np.asarray(snr_db, dtype=float), kind="stable"):
        share = min(max(left, 0.0), 1.0)
        opened[index][: round(share * frames[index])] = True
        left -= share
    return opened


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
) -> tuple[dict[str, Assignment], dict]:
    """Gates of each recording with the mean activation of the `learned` ones [T, K], and what to say of the policy."""
    own = [learned[pair.name] for pair in found]
    rates = np.mean([gates.mean(axis=0) for gates in own], axis=0)
    shares, count = gate_shares(model), len(model.gate_names)
    target = float(rates @ shares)
    detail: dict = {"target_activation": round(target, 6)}
    if policy == "random":
        given = [drawn_gates(own, len(gates), pair.name, seed) for gates, pair in zip(own, found, strict=True)]
    elif policy == "frozen":
        chosen = np.random.default_rng(seed).permutation(len(found))[:LOOKED_AT]
        pattern = best_set(model, fixed_sets(shares, target), [read_pair(found[index]) for index in chosen])
        detail["open_gates"] = [name for name, is_open in zip(model.gate_names, pattern, strict=True) if is_open]
        given = [pattern[None]] * len(own)
    elif policy == "other":
        given = own[1:] + own[:1]
    elif policy == "shifted":
        given = [np.roll(gates, LATE, axis=0) for gates in own]
    else:  # all gates of a frame, or none
        if policy == "snr":
            opened = snr_opened(np.array([pair.snr_db for pair in found]), [len(gates) for gates in own], target)
        elif policy == "energy":
            levels = [frame_levels(read_pair(pair)[1]) for pair in found]
            threshold = energy_threshold(levels, target)
            detail["threshold_db"] = round(threshold, 3)
            opened = [level > threshold for level in levels]
        else:
            gains = [opening_gain(model, *read_pair(pair)) for pair in found]
            threshold = energy_threshold(gains, target)
            opened = [gain > threshold for gain in gains]
        given = [np.repeat(frames[:, None], count, axis=1) for frames in opened]
    return {pair.name: Assignment(given=gates) for pair, gates in zip(found, given, strict=True)}, detail


def opening_gain(model, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """What opening everything gains [T] in each frame of a recording; see :func:`dsn_lite.evaluation.benefit.gain`."""
    refined, small = (
        stft(torch.from_numpy(_answer(model, noisy, gates).astype(np.float32))[None]) for gates in ("open", "closed")
    )
    return gain(refined, small, torch.from_numpy(clean.astype(np.float32))[None])[0].double().numpy()


def _answer(model, noisy: np.ndarray, gates: str | np.ndarray) -> np.ndarray:
    """What a model makes of a wave [samples] with gates [K] all the time, or with all of them open or closed."""
    policy = gates if isinstance(gates, str) else np.tile(gates.astype(np.float32), (frame_count(len(noisy)), 1))
    return np.asarray(model.enhance(noisy, SAMPLE_RATE, policy=policy).wave)
