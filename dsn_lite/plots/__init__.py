"""Arrays to pictures, and nothing else."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "maps": "COLUMNS Spectrogram check_name gate_map save",
    "curves": "bench_figure training_curve",
}
__getattr__, __dir__ = face(globals(), _HOMES)
