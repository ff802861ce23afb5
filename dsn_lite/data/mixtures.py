"""The mixtures of a corpus as a data set of PyTorch."""

from __future__ import annotations

import torch

from dsn_lite.data.corpus import Corpus
from dsn_lite.data.mixing import render
from dsn_lite.data.recipes import Recipe, plain_recipe, recipe, stream_recipe


class Mixtures(torch.utils.data.Dataset):
    """Mixtures by index: ``noisy`` and ``clean`` float32 [samples], ``index`` int, ``snr`` float.

    Training counts up: item ``i`` is always recipe ``i``, so a run resumed at step s takes up the index s * batch.
    Validation is a fixed ``size`` of the valid split.

    Parameters
    ----------
    corpus : Corpus
    split : {"train", "valid", "test"}
    seconds : float
        Length of each mixture.
    seed : int
        Another seed, other mixtures.
    size : int, optional
        Number of items; without it 2**31, as good as endless: use a sampler that counts, not one that shuffles.
    """

    def __init__(self, corpus: Corpus, split: str, seconds: float, seed: int, size: int | None = None) -> None:
        self.corpus, self.split, self.seconds, self.seed = corpus, split, seconds, seed
        self.size = 2**31 if size is None else size

    def __len__(self) -> int:
        return self.size

    def recipe(self, i: int) -> Recipe:
        """The recipe of item ``i``."""
        return recipe(self.corpus, self.seed, i, self.seconds, self.split)

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < self.size:
            raise IndexError(i)
        item = self.recipe(i)
        noisy, clean = map(torch.from_numpy, render(self.corpus, item))
        return {"noisy": noisy, "clean": clean, "index": item.index, "snr": item.snr_db}


class PlainMixtures(Mixtures):
    """Validation mixtures of one speaker and one noise of a data set at 0, 5 and 10 dB, nothing done to either.

    A data set whose noises are in no training file shows what carries over.
    """

    def __init__(self, corpus: Corpus, source: str, size: int, seconds: float = 4.0) -> None:
        super().__init__(corpus, "valid", seconds, 0, size)
        self.source = source

    def recipe(self, i: int) -> Recipe:
        """The recipe of item ``i``."""
        return plain_recipe(self.corpus, i, self.seconds, self.source, (0.0, 5.0, 10.0)[i % 3])


class ValidationStreams(Mixtures):
    """Turns and pauses of two validation speakers, a noise that goes on: :func:`~dsn_lite.data.recipes.stream_recipe`.

    Dense mixtures of seconds do not show whether gates know moments.
    """

    def __init__(self, corpus: Corpus, size: int, seconds: float = 30.0) -> None:
        super().__init__(corpus, "valid", seconds, 1, size)

    def recipe(self, i: int) -> Recipe:
        """The recipe of item ``i``."""
        return stream_recipe(self.corpus, i, self.seconds)
