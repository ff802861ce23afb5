"""Losses, guidance, gate patterns, the loop, and the trainers of the enhancer and its policy."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "losses": "SpeechLoss activation activation_loss usage_loss",
    "guidance": "Guidance",
    "labels": "make_labels read_labels",
    "patterns": "Mix draw",
    "plan": "Plan",
    "loop": "CHECKPOINT LOG Loop",
    "enhancer": "EnhancerConfig EnhancerTrainer",
    "policies": "PolicyConfig PolicyTrainer",
}
__getattr__, __dir__ = face(globals(), _HOMES)
