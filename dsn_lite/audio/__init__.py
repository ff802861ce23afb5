"""Samples: read, write, resample, measure, mix, transform; knows nothing of networks.

>>> from dsn_lite import audio
>>> audio.rms_dbfs([0.1, -0.1])
-20.0
"""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "files": (
        "Audio BLOCK Reader Resampler SUFFIXES Writer active_level fit format_of mix_at_snr read "
        "replacing resample resampled_length rms_dbfs temporary_name to_mono write writing"
    ),
    "spectral": "compress decompress frame_count istft power stft window",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
