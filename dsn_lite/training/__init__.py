"""Losses, guidance, gate patterns, the loop, and the trainer of the enhancer."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "losses": "SpeechLoss activation activation_loss usage_loss",
    "guidance": "Guidance",
    "labels": "make_labels read_labels",
    "patterns": "Mix draw",
    "plan": "Plan",
    "loop": "CHECKPOINT LOG Loop",
    "former": "Gating Trainer Training",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
