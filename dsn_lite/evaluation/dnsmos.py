"""DNSMOS P.835: how a listener would rate speech (SIG), background (BAK) and the whole (OVRL), from the signal alone.

The network and its weights come with the package ``speechmos`` (Reddy, Gopal and Cutler, "DNSMOS P.835", ICASSP
2022). It is run here directly through ONNX Runtime: the package also computes a second score (P.808) with a mel
spectrogram at every call, rates windows again that hold the same samples, and takes every thread it finds. The numbers
are the package's.

How a score comes about (the package's rule): the clip is doubled until it lasts 9.01 s or more, windows of 9.01 s start
every second, the network rates each window, a polynomial maps each raw rating to the P.835 scale, and the clip gets
the mean.

OVRL is fragile as a label: one clip can score 1.1 when cut to 1 s and 2.5 at 10 s, and the level moves it too.
:func:`ovrl_label` therefore wants 4 s or more and brings every clip to one level first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from dsn_lite.audio.levels import active_level
from dsn_lite.errors import InputError
from dsn_lite.evaluation.metrics import load_package

SAMPLE_RATE = 16000
WINDOW_SAMPLES = int(9.01 * SAMPLE_RATE)
HOP_SAMPLES = SAMPLE_RATE
LABEL_SECONDS = 4.0
LABEL_DBFS = -25.0

# Raw output of the network -> P.835 scale, highest power first (speechmos/dnsmos.py, not personalised).
_POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


def score(waves: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """DNSMOS P.835 of clips at 16 kHz: ``sig``, ``bak``, ``ovrl``, each float64 [N], MOS from about 1 to 5.

    `waves` are [N, samples], one wave [samples], or N waves [samples] of any lengths, full scale = 1. The scores are those
    of ``speechmos.dnsmos.run``; what is beyond full scale is clipped, as a sound card would (the package refuses it).

    >>> noise = 0.1 * np.random.default_rng(0).standard_normal(5 * 16000)
    >>> score(noise)["ovrl"].round(1)
    array([1.1])
    """
    if isinstance(waves, np.ndarray) and waves.ndim == 1:
        waves = [waves]
    rows = [_score_one(wave) for wave in waves]
    return {key: np.array([row[key] for row in rows], dtype=np.float64) for key in _POLYNOMIALS}


def ovrl_label(wave: np.ndarray) -> float:
    """OVRL of a training mixture [samples] at 16 kHz, about 1 to 4.5: the label of metric guidance.

    The level is normalised; 4 s or more are needed. Only the first window of 9.01 s is rated: a clip shorter than that is
    whole in it.
    """
    wave = np.asarray(wave)
    seconds = wave.shape[-1] / SAMPLE_RATE
    if seconds < LABEL_SECONDS:
        raise InputError(f"an OVRL label of {seconds:.2f} s of sound says little; give {LABEL_SECONDS:g} s or more")
    wave = _checked(wave)
    if not np.any(wave):
        raise InputError("an OVRL label of digital silence says nothing; leave the clip out")
    # One window: a clip that is repeated shows the same samples in each, and the label costs a third.
    raw = _raw(_repeated(to_level(wave))[:WINDOW_SAMPLES])
    return float(np.polyval(_POLYNOMIALS["ovrl"], raw[2]))


def to_level(wave: np.ndarray, *, dbfs: float = LABEL_DBFS) -> np.ndarray:
    """``wave`` [samples] scaled to ``dbfs`` over its active frames; digital silence comes back as it is.

    >>> round(float(to_level(np.full(16000, 0.5))[0]), 4)
    0.0562
    """
    level = active_level(wave, SAMPLE_RATE)
    return wave if np.isinf(level) else (wave * 10 ** ((dbfs - level) / 20)).astype(np.float32)


def _score_one(wave: np.ndarray) -> dict[str, float]:
    wave = _checked(wave)
    audio = _repeated(np.clip(wave, -1, 1))
    count = int(len(audio) // SAMPLE_RATE - 9.01) + 1  # the package's arithmetic
    starts = [start for start in range(0, count * HOP_SAMPLES, HOP_SAMPLES) if start + WINDOW_SAMPLES <= len(audio)]
    rated: dict[int, list[float]] = {}
    rows = []
    for start in starts:
        # A repeated clip of a whole number of seconds shows the same samples again: rate them once.
        phase = start % len(wave)
        if phase not in rated:
            fits = zip(_POLYNOMIALS.values(), _raw(audio[start : start + WINDOW_SAMPLES]), strict=True)
            rated[phase] = [float(np.polyval(fit, value)) for fit, value in fits]
        rows.append(rated[phase])
    return dict(zip(_POLYNOMIALS, np.mean(rows, axis=0).tolist(), strict=True))


def _checked(wave: np.ndarray) -> np.ndarray:
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or wave.size == 0:
        raise InputError(f"DNSMOS rates one channel of samples, not an array of shape {wave.shape}; pass [samples]")
    if not np.isfinite(wave).all():
        raise InputError("DNSMOS cannot rate NaN or infinite samples; repair the file or leave it out")
    return wave


def _repeated(wave: np.ndarray) -> np.ndarray:
    """The package doubles a clip until it is long enough (which is not the same as filling up to 9.01 s)."""
    while len(wave) < WINDOW_SAMPLES:
        wave = np.concatenate([wave, wave])
    return wave


def _raw(segment: np.ndarray) -> np.ndarray:
    """Raw sig, bak, ovrl [3] of one window [144160]."""
    return _session().run(None, {"input_1": segment[None].astype(np.float32)})[0][0].astype(np.float64)


@cache
def _session():
    load_package("speechmos")
    onnxruntime = load_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # several processes share the machine
    path = resources.files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
