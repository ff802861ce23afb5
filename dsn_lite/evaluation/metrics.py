"""How good an enhanced signal is, given the clean one: PESQ-WB, STOI, ESTOI, SI-SDR.

All take one channel at 16 kHz, clean and processed of the same length, full scale = 1, and give one number; a signal
that a metric cannot say anything about (no speech in it, too short) gives NaN, never an exception. DNSMOS, which needs
no clean signal, is in :mod:`dsn_lite.evaluation.dnsmos`.
"""

from __future__ import annotations

import warnings
from importlib import import_module

import numpy as np

from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.errors import InputError

PESQ_SECONDS = 15.0
STOI_SECONDS = 60.0
SI_SDR_LIMIT = 100.0


def pesq_wb(clean: np.ndarray, processed: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2) of waves [samples] at 16 kHz, MOS-LQO from 1.04 to 4.64.

    Longer files are scored in equal pieces of at most 15 s and averaged: PESQ is meant for 8 to 12 s, and its reference
    code writes past its tables when it finds more than 50 utterances. NaN where no utterance is found (silence) or the
    signal is shorter than a quarter of a second.

    >>> pesq_wb(np.zeros(16000), np.zeros(16000))
    nan
    """
    clean, processed = _checked(clean, processed)
    package = load_package("pesq")

    def one(clean: np.ndarray, processed: np.ndarray) -> float:
        if not clean.any() or not processed.any():
            return np.nan
        try:
            return float(package.pesq(SAMPLE_RATE, clean, processed, "wb"))
        except (package.NoUtterancesError, package.BufferTooShortError):
            return np.nan

    return _in_pieces(one, clean, processed, PESQ_SECONDS)


def stoi(clean: np.ndarray, processed: np.ndarray, *, extended: bool = False) -> float:
    """Short-time objective intelligibility of waves [samples] at 16 kHz, at most 1 (Taal et al. 2011).

    ``extended`` is ESTOI (Jensen and Taal 2016). Files longer than 60 s are scored in equal pieces and averaged, to bound
    the memory. NaN where less than 0.4 s of the clean signal is active.

    >>> noise = np.random.default_rng(0).standard_normal(16000)
    >>> round(stoi(noise, noise), 3), round(stoi(noise, noise, extended=True), 3)
    (1.0, 1.0)
    """
    clean, processed = _checked(clean, processed)
    package = load_package("pystoi")

    def one(clean: np.ndarray, processed: np.ndarray) -> float:
        if not clean.any():
            return np.nan
        with warnings.catch_warnings():
            # "Not enough STFT frames": pystoi warns and returns 1e-5, which would pass for a bad score.
            warnings.simplefilter("error", RuntimeWarning)
            # Its dither comes from the global generator; a fixed seed makes scores equal from run to run.
            state = np.random.get_state()  # noqa: NPY002
            np.random.seed(0)  # noqa: NPY002
            try:
                return float(package.stoi(clean, processed, SAMPLE_RATE, extended=extended))
            except (RuntimeWarning, ValueError):
                return np.nan
            finally:
                np.random.set_state(state)  # noqa: NPY002

    return _in_pieces(one, clean, processed, STOI_SECONDS)


def si_sdr(clean: np.ndarray, processed: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019) of waves [samples] of any rate.

    With both signals of zero mean, ``target = <processed, clean> / <clean, clean> * clean`` and the ratio is
    ``|target|^2 / |processed - target|^2``. It is held within -100 and 100 dB, so that means stay finite: 100 for a scaled
    copy, -100 for a processed signal that is silent or orthogonal; NaN for a silent clean signal.

    >>> clean, noise = np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1])
    >>> round(si_sdr(clean, 3 * (clean + 0.1 * noise)), 3), si_sdr(clean, 0.5 * clean), si_sdr(clean, 0 * clean)
    (20.0, 100.0, -100.0)
    """
    clean, processed = (wave - wave.mean() for wave in _checked(clean, processed))
    energy = clean @ clean
    if energy == 0:
        return np.nan
    target = (processed @ clean) / energy * clean
    error = processed - target
    signal, distortion = target @ target, error @ error
    if signal == 0 or distortion == 0:
        return SI_SDR_LIMIT if signal > 0 else -SI_SDR_LIMIT
    return float(np.clip(10 * np.log10(signal / distortion), -SI_SDR_LIMIT, SI_SDR_LIMIT))


def require_packages() -> None:
    """Raise InputError, with the cure, if a package that the metrics need is missing."""
    for name in ("pesq", "pystoi", "onnxruntime", "speechmos"):
        load_package(name)


def load_package(name: str):
    """A package that only measuring needs."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f'evaluation needs the package {name}, which is not here: pip install "dsn-lite[evaluate]"'
            + (" (it is compiled: install a C compiler first)" if name == "pesq" else "")
        ) from error


def _checked(clean: np.ndarray, processed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    clean, processed = np.asarray(clean, dtype=np.float64), np.asarray(processed, dtype=np.float64)
    if clean.ndim != 1 or clean.shape != processed.shape or clean.size == 0:
        raise InputError(
            f"a metric compares two waves [samples] of one length, not {clean.shape} and {processed.shape}; "
            "cut them to the same samples"
        )
    if not (np.isfinite(clean).all() and np.isfinite(processed).all()):
        raise InputError("a metric cannot compare NaN or infinite samples; repair the file or leave it out")
    return clean, processed


def _in_pieces(metric, clean: np.ndarray, processed: np.ndarray, seconds: float) -> float:
    """Mean of ``metric`` over equal pieces of at most ``seconds``; pieces without a value do not count."""
    pieces = -(-len(clean) // int(seconds * SAMPLE_RATE))
    pairs = zip(np.array_split(clean, pieces), np.array_split(processed, pieces), strict=True)
    values = np.array([metric(*pair) for pair in pairs])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
