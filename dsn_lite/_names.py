"""Where a name is found: the faces of the rooms, and the modules of the version before under their former names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from warnings import warn


def face(module: dict[str, Any], homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a room whose globals are `module`: names that are imported on their first use.

    `homes` has module -> names, parted by spaces.

    >>> face({"__name__": "dsn_lite.audio"}, {"files": "write"})[0]("write").__module__
    'dsn_lite.audio.files'
    """
    room = module["__name__"]
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        if name in home_of:
            return getattr(import_module(f"{room}.{home_of[name]}"), name)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return find, lambda: sorted({*module, *home_of})


_MOVED = {
    "audiocache": "data.cache", "bench": "engine.bench", "clips": "audio.clips", "compiled": "network.compiled",
    "corpus": "data", "curve": "plots.curves", "dnsmos": "evaluation.dnsmos", "figures": "plots.maps",
    "files": "engine.files", "gates": "network.gates", "guidance": "training.guidance", "labels": "training.labels",
    "layouts": "data.layouts", "live": "engine.live", "loop": "training.loop", "losses": "training.losses",
    "manifest": "data.manifest", "metrics": "evaluation.metrics", "mixing": "data.mixing", "noises": "audio.noises",
    "patterns": "training.patterns", "perceptual": "training.perceptual", "provenance": "evaluation.provenance",
    "recipes": "data.recipes", "registry": "zoo", "rooms": "data.rirs", "spectral": "audio.spectral",
    "streaming": "engine", "model": "network.model", "config": "network.config", "macs": "network.macs",
    "policy": "network.policy", "enhancement": "network.enhance", "kernel": "engine.kernel.engine",
    "export": "engine.onnx", "blocks": "network.blocks", "blocks.attention": "network.blocks.attention",
    "blocks.convolution": "network.blocks.convolution", "blocks.frames": "network.blocks.frames",
    "blocks.held_gru": "network.blocks.held_gru", "blocks.linear": "network.blocks.linear",
    "blocks.recurrent": "network.blocks.recurrent",
    "slimmable.demucs_stream": "slimmable.demucs.stream", "slimmable.demucs_training": "slimmable.demucs.train",
    "slimmable.mixtures": "slimmable.separator.mixtures", "slimmable.separation_loss": "slimmable.separator.loss",
    "slimmable.separation_training": "slimmable.separator.train",
    "slimmable.separation_evaluation": "slimmable.separator.evaluate",
}  # fmt: skip
"""Modules of version 0.1 by their names then; each can be imported by both names until the next version."""


class _Former(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for a former name, None for all others."""
        root, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if root == "dsn_lite" and name in _MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its name of today."""
        name = f"dsn_lite.{_MOVED[spec.name.partition('.')[2]]}"
        warn(f"{spec.name} is now {name}; the former name goes with the next version", DeprecationWarning, stacklevel=6)
        self.module, self.spec = import_module(name), import_module(name).__spec__
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already: give it back its own spec."""
        module.__spec__ = self.spec


if not any(type(finder).__name__ == "_Former" for finder in sys.meta_path):
    sys.meta_path.insert(0, _Former())  # before others find a module of a former package in the folder of today's
