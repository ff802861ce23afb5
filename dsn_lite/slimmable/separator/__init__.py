"""Two talkers of one recording apart, by a network that picks a width for every chunk."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "network": "Separated Separator", "parts": "SeparatorConfig",
    "loss": "chunk_quality separation_loss",
    "mixtures": "PairMixtures", "fixed": "FixedPair fixed_list render_fixed",
    "train": "SeparationPlan SeparationTraining",
    "evaluate": "evaluate_separation improvement",
}
__getattr__, __dir__ = face(globals(), _HOMES)
