"""A corpus that is made here, for runs of a few steps."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsn_lite.data import Corpus, rirs


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A corpus of four speakers and two noises, and a cache with a bank of rooms that needs no simulation."""
    root = tmp_path_factory.mktemp("corpus")
    time, rows = np.arange(16_000) / 16_000, ["path,kind,split,source,speaker,language,seconds,licence"]
    for number in range(6):
        wave = 0.2 * np.sin(2 * np.pi * (150 + 40 * number) * time) * (np.sin(9 * time) > 0)
        soundfile.write(root / f"{number}.flac", wave, 16_000)
        kind, split = "speech" if number < 4 else "noise", "valid" if number % 2 else "train"
        rows.append(f"{number}.flac,{kind},{split},made,s{number},en,1,CC0")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "cache").mkdir()
    responses = np.zeros((rirs.ROOMS, rirs.RESPONSES, 100), np.float32)
    responses[..., 0] = 1
    for method in ("image-source", "decay"):
        np.savez(root / "cache" / f"rooms-{method}-1-{rirs.SEED}-{rirs.ROOMS}.npz", responses=responses)
    return root


@pytest.fixture
def corpus(folder) -> Corpus:
    """It, opened."""
    return Corpus.open(folder / "manifest.csv", folder / "cache")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch, folder):
    """Curves take longer than these runs."""
    monkeypatch.setattr("dsn_lite.training.run_files.draw_curve", lambda *_: None)
    monkeypatch.setenv("DSN_LITE_CACHE", str(folder / "cache"))
