"""A causal waveform network after DEMUCS whose layers run at one of four widths."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "network": "LEVELS DemucsConfig SlimDemucs",
    "stream": "SEGMENT SEGMENT_FRAMES TARGETS SegmentRunner level_out",
    "train": "DemucsPlan DemucsTraining",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
