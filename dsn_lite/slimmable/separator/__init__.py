"""Two talkers of one recording apart, by a network that picks a width for every chunk."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "network": "Separated Separator", "parts": "SeparatorConfig",
    "loss": "chunk_quality separation_loss",
    "mixtures": "PairMixtures", "fixed": "FixedPair fixed_list render_fixed",
    "train": "SeparationPlan SeparationTraining",
    "evaluate": "evaluate_separation improvement",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
