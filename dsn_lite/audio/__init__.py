"""Samples: read, write, resample, measure, mix, transform; knows nothing of networks.

>>> from dsn_lite import audio
>>> audio.rms_dbfs([0.1, -0.1])
-20.0
"""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "checks": "as_channels as_mono as_output as_rate as_samples",
    "files": "FOREIGN SUFFIXES Writer format_of kept_subtype replacing temporary_name write writing",
    "levels": "active_level mix_at_snr rms_dbfs to_mono",
    "reader": "Audio Reader read",
    "resampling": "Resampler fit resample resampled_length",
    "sources": "BLOCK",
    "spectral": "compress decompress frame_count istft power stft window",
}
__getattr__, __dir__ = face(globals(), _HOMES)
