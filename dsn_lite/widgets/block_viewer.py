"""Block viewer: the weights of one dynamic block, which of them a frame reads, and what that costs.

The weights are those of a real network with its norms folded, the costs those of :mod:`dsn_lite.network.macs`. Packed in
Python, shown by `block_viewer.js`, where gates are flipped by hand; no kernel is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import traitlets

from dsn_lite.audio.spectral import FRAMES_PER_SECOND, SAMPLE_RATE
from dsn_lite.errors import InputError
from dsn_lite.network.folded import Arrays, FoldedLayer, fold
from dsn_lite.network.model import Network
from dsn_lite.widgets.shared import Pack, Widget, check_gates, front_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Matrix:
    """One matrix of a block, with its bias."""

    name: str
    rows: str
    """What a row stands for."""
    columns: str
    weight: np.ndarray
    """[R, S]"""
    bias: np.ndarray
    """[R]"""
    gated: bool
    """Whether it is read only where the gate is open."""

    def read(self, is_open: bool) -> bool:
        """Whether it is read on a frame.

        >>> matrix = Matrix("up", "units", "channels", np.zeros((2, 3)), np.zeros(2), gated=True)
        >>> matrix.read(True), matrix.read(False)
        (True, False)
        """
        return is_open or not self.gated


@dataclass(frozen=True)
class Block:
    """A dynamic block of a network: its matrices and its cost."""

    name: str
    gate: str
    """Name of its gate."""
    note: str
    """What closing means here."""
    matrices: tuple[Matrix, ...]
    static: int
    """MACs of every frame, from :func:`dsn_lite.network.macs.count`."""
    dynamic: int
    """MACs that an open gate adds."""
    products: tuple[int, int]
    """Those of the two that need no weight: scores and mixing of attention, static and dynamic."""
    uses: int
    """How often a frame uses each weight: once in each band."""


def take_apart(row: FoldedLayer, gate: str, macs: tuple[int, int], title: str, note: str) -> Block:
    """The matrices of one layer that has a static and a dynamic part, behind a gate, and its MACs (static, dynamic)."""
    matrices = (*_matrices(row.kind, row.static, False), *_matrices(row.kind, row.dynamic, True))
    products = (0, 0)
    if row.kind == "attention":  # two products of [F, width] with [width, F] or [F, F], a head
        products = tuple(2 * row.bands**2 * part["out"].shape[1] for part in (row.static, row.dynamic))
    read = sum(matrix.weight.size for matrix in matrices if not matrix.gated)
    return Block(title, gate, note, matrices, *macs, products, (macs[0] - products[0]) // read)


TITLES = {
    "linear": (
        "fully connected",
        "A closed slice of hidden units: its own two matrices are left out, and nothing is added to the dynamic channels.",
    ),
    "down": ("convolution", "A closed slice of output channels: its kernel is not read, and these channels are zero."),
    "up": (
        "transposed convolution",
        "A closed slice of output channels: its kernel is not read, and these channels stay what the skip brings.",
    ),
    "recurrent": ("grouped GRU", "Closed groups add nothing and hold their state until the gate opens again."),
    "attention": (
        "attention heads",
        "A closed head is a missing summand: its queries, keys and values are not computed, nor its products of one band "
        "with another, which need no weights.",
    ),
}
"""For each kind of layer: what the viewer calls it, and what closing means there."""


def blocks_of(network: Network) -> list[Block]:
    """One block of each kind of a network, as the viewer shows them: the innermost of those with a static part.

    >>> from dsn_lite.network.config import Config
    >>> [block.gate for block in blocks_of(Network(Config.preset("tiny")))]
    ['hidden units', 'encoder 3', 'decoder 3', 'groups', 'heads']
    """
    check_gates(network)
    chosen = []
    for kind, (title, note) in TITLES.items():
        layers = zip(fold(network), network.layers, strict=True)
        found = [(row, layer) for row, layer in layers if row.kind == kind and row.static and row.dynamic]
        row, layer = found[-1 if kind == "down" else 0]
        chosen.append(take_apart(row, network.gate_names[row.gate], layer.block.macs(row.bands), title, note))
    return chosen


AXES = {
    ("linear", "up"): ("hidden units", "channels"), ("linear", "down"): ("channels", "hidden units"),
    ("down", "weight"): ("output channels", "inputs and taps"), ("up", "weight"): ("output channels", "inputs and taps"),
    ("attention", "input"): ("queries, keys, values", "channels"),
    ("attention", "out"): ("channels", "what the heads give"),
    ("recurrent", "input"): ("reset, update, new", "channels"),
    ("recurrent", "recurrent"): ("reset, update, new", "own state"),
    ("recurrent", "out"): ("channels", "what the groups give"),
}  # fmt: skip
"""What rows and columns of an array stand for, by the kind of its layer and its name; the others are no matrices."""


def _matrices(kind: str, arrays: Arrays, is_dynamic: bool) -> Iterator[Matrix]:
    """The matrices of one part of a layer: all of a dynamic part is behind the gate, nothing of a static one."""
    for name, array in arrays.items():
        if (kind, name) not in AXES:
            continue
        rows, columns = AXES[kind, name]
        inputs = array.shape[-1] if array.ndim != 3 else array.shape[1] * array.shape[2]
        weight = array.reshape(-1, inputs).astype(np.float64)
        bias = arrays["bias" if name == "weight" else f"{name}_bias"].reshape(-1).astype(np.float64)
        word = {"weight": "kernel"}.get(name, name)
        when = "behind the gate" if is_dynamic else "always"
        yield Matrix(f"{word}, {when}", rows, columns, weight, bias, is_dynamic)


def most_divided(gates: np.ndarray, frames: int) -> int:
    """First frame of the stretch of `frames` in which most of the gates [T, K] are both open and closed.

    Each gate counts by its rarer state, up to a quarter of the frames: many that move are better than one that moves much.

    >>> most_divided(np.array([[0], [0], [0], [1], [1], [1]]), 2)
    2
    """
    if len(gates) < frames:
        raise InputError(f"{len(gates)} frames of gates are too few for a lane of {frames}; take a longer sound")
    opened = np.lib.stride_tricks.sliding_window_view(gates, frames, axis=0).sum(-1, dtype=int)  # [start, K]
    return int(np.minimum(opened, frames - opened).clip(max=max(1, frames // 4)).sum(1).argmax())


class BlockViewer(Widget):
    """A dynamic block, frame by frame: which weights are read, and how many MACs that takes.

    Parameters
    ----------
    blocks : sequence of Block
    lanes : mapping of the gate's name -> gates of some frames, each 0 or 1
        One lane for each block, all of one length.
        In a live notebook the attribute of that name follows what is clicked, and can be set.
    title : name of the network

    Examples
    --------
    >>> from dsn_lite.network.config import Config
    >>> network = Network(Config.preset("tiny")).eval()
    >>> lanes = {block.gate: [1, 0, 0, 1] for block in blocks_of(network)}
    >>> viewer = BlockViewer(blocks_of(network), lanes, "tiny")
    >>> block = viewer.blocks[0]
    >>> viewer.lane_macs(block["gate"]) == 4 * block["static"] + 2 * block["dynamic"]
    True
    """

    _esm = front_end("block_viewer.js")
    _css = front_end("block_viewer.css")
    title = traitlets.Unicode().tag(sync=True)
    lanes = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Unicode().tag(sync=True)
    """Gate of the block that is shown."""
    blocks = traitlets.List().tag(sync=True)
    """One dict a block; values that end in `_at` are [offset, length] in `data`."""
    frames_per_second = traitlets.Float().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    """Weights and biases, each matrix as int16 times its `scale`, little-endian."""

    def __init__(self, blocks: Sequence[Block], lanes: Mapping[str, Sequence[int]], title: str = ""):
        if not blocks:
            raise InputError("there is no block to show; give at least one")
        plain = {gate: [int(value) for value in lane] for gate, lane in lanes.items()}
        if {block.gate for block in blocks} - set(plain):
            raise InputError(f"lanes are there for {', '.join(plain)}; each block needs one under the name of its gate")
        if {value for lane in plain.values() for value in lane} - {0, 1} or len(set(map(len, plain.values()))) != 1:
            raise InputError("lanes must be of one length and hold nothing but 0 and 1")
        pack = Pack()
        super().__init__(
            title=title,
            lanes={block.gate: plain[block.gate] for block in blocks},
            chosen=blocks[0].gate,
            frames_per_second=FRAMES_PER_SECOND,
            blocks=[_describe(block, pack) for block in blocks],
            data=bytes(pack.data),
        )
        self._blocks = {block.gate: block for block in blocks}

    @classmethod
    def from_network(cls, network: Network, wave: np.ndarray, frames: int = 24) -> BlockViewer:
        """Blocks of a network, with the gates that its policy chose in a part of a sound.

        Parameters
        ----------
        network : Network with gates, in evaluation mode
        wave : noisy sound [samples] at 16 kHz
        frames : length of the lane; the part is taken where the gates are most evenly open and closed.
        """
        blocks = blocks_of(network)
        gates = network.enhance(wave, SAMPLE_RATE).gates[:, [network.gate_names.index(block.gate) for block in blocks]]
        start = most_divided(gates, frames)
        part = gates[start : start + frames]
        return cls(blocks, {block.gate: part[:, k].tolist() for k, block in enumerate(blocks)}, network.name)

    def lane_macs(self, gate: str) -> int:
        """MACs of the block behind `gate` in all frames of its lane, as the gates are now."""
        block, lane = self._blocks[gate], self.lanes[gate]
        return block.static * len(lane) + block.dynamic * sum(lane)

    def figure(self) -> Figure:
        """The matrices of the chosen block, once with its gate closed and once open."""
        from matplotlib.figure import Figure

        block = self._blocks[self.chosen]
        figure = Figure(figsize=(9, 6), layout="constrained")
        widths = [max(matrix.weight.shape[1], 12) for matrix in block.matrices]
        grid = figure.subplots(2, len(block.matrices), squeeze=False, width_ratios=widths)
        for row, is_open in zip(grid, (False, True), strict=True):
            for axes, matrix in zip(row, block.matrices, strict=True):
                most = np.abs(matrix.weight).max()
                grey = 0.86 - 0.3 * np.abs(matrix.weight) / most
                axes.imshow(np.stack([grey] * 3, -1), aspect="auto")
                if matrix.read(is_open):
                    axes.imshow(matrix.weight, "RdBu", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
                state = "open" if is_open else "closed"
                axes.set(title=f"{matrix.name}, {state}", xlabel=matrix.columns, ylabel=matrix.rows)
        full = block.static + block.dynamic
        figure.suptitle(f"{block.name} ({block.gate}): {block.static:,} MACs a frame closed, {full:,} open")
        return figure

    def __repr__(self) -> str:
        frames = len(self.lanes[self.chosen])
        return f"BlockViewer({self.title!r}, {len(self.blocks)} blocks, {frames} frames)"


def _describe(block: Block, pack: Pack) -> dict:
    matrices = [_describe_matrix(matrix, pack) for matrix in block.matrices]
    return vars(block) | {"products": list(block.products), "matrices": matrices}


def _describe_matrix(matrix: Matrix, pack: Pack) -> dict:
    scale = max(np.abs(matrix.weight).max(), np.abs(matrix.bias).max()) / 32767 or 1.0
    return {
        "name": matrix.name, "rows": matrix.rows, "columns": matrix.columns, "shape": list(matrix.weight.shape),
        "gated": matrix.gated, "scale": float(scale),
        "weight_at": pack.add(np.round(matrix.weight / scale).astype("<i2").tobytes()),
        "bias_at": pack.add(np.round(matrix.bias / scale).astype("<i2").tobytes()),
    }  # fmt: skip
