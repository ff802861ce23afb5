"""A causal waveform network after DEMUCS whose layers run at one of four widths."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "network": "LEVELS DemucsConfig SlimDemucs",
    "stream": "SEGMENT SEGMENT_FRAMES TARGETS SegmentRunner level_out",
    "train": "DemucsPlan DemucsTraining",
}
__getattr__, __dir__ = face(globals(), _HOMES)
