"""Arrays to pictures, and nothing else."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "maps": "COLUMNS Spectrogram check_name gate_map save",
    "curves": "bench_figure training_curve",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
