"""OVRL labels of training mixtures, kept on disk under the hash of the corpus and the mixtures' recipe numbers.

Beside them lies a note of what the files of the corpus held: where one was replaced, labels are made anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsn_lite.audio.files import replacing
from dsn_lite.data import Corpus, Mixtures
from dsn_lite.errors import InputError


def label_path(corpus: Corpus, split: str, seconds: float, seed: int) -> Path:
    """File of the labels; recipes are pure functions of what its name holds."""
    return corpus.cache.folder.parent / f"ovrl-{corpus.hash[:16]}-{split}-{seconds:g}s-{seed}.npy"


def _kept(corpus: Corpus, path: Path) -> np.ndarray:
    """Labels [items] in a file; none where it is missing, damaged, or made when the files held other sound."""
    try:
        note = path.with_suffix(".json")
        if note.exists() and json.loads(note.read_text())["contents"] != corpus.cache.contents:
            return np.zeros(0, np.float32)
        return np.load(path, allow_pickle=False) if path.exists() else np.zeros(0, np.float32)
    except (ValueError, LookupError, TypeError, EOFError):
        return np.zeros(0, np.float32)


def read_labels(corpus: Corpus, split: str, seconds: float, seed: int, items: int) -> np.ndarray:
    """OVRL [items] of the first mixtures.
    """
    labels = _kept(corpus, label_path(corpus, split, seconds, seed))
    if len(labels) < items:
        raise InputError(
            f"{len(labels)} of {items} mixtures have an OVRL label; run `dsn-lite label MANIFEST --items {items} "
            f"--seconds {seconds:g} --seed {seed}` first"
        )
    return labels[:items]


def make_labels(corpus: Corpus, split: str, seconds: float, seed: int, items: int, *, save_every: int = 50) -> np.ndarray:
    """Score the mixtures that have no label yet, saving as it goes; returns OVRL [items]."""
    from dsn_lite.evaluation.dnsmos import ovrl_label

    path = label_path(corpus, split, seconds, seed)
    labels = list(_kept(corpus, path))
    dataset = Mixtures(corpus, split, seconds, seed)
    for i in tqdm(range(len(labels), items), initial=min(len(labels), items), total=items, desc="OVRL", unit="mixture"):
        labels.append(float(ovrl_label(dataset[i]["noisy"].numpy())))
        if len(labels) % save_every == 0 or len(labels) == items:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.array(labels, dtype=np.float32), allow_pickle=False)
            # Last: labels beside the note of older sound are made again, and those without a note are taken as they are.
            with replacing(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps({"contents": corpus.cache.contents}) + "\n")
    return np.array(labels[:items])
