"""A network as the kernel reads it: one flat block of weights, one of memory, and a table of operations.

It goes over the table of layers (:func:`dsn_lite.network.folded.fold`), so that any configuration is packed alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsn_lite.audio.spectral import HOP
from dsn_lite.engine.kernel import frame, ops, transforms
from dsn_lite.engine.kernel.products import COLUMNS
from dsn_lite.engine.kernel.taps import edges_of, taps_of
from dsn_lite.network.folded import Arrays, FoldedLayer, fold, fold_policy
from dsn_lite.network.model import BINS, Network

CONVOLUTIONS = ("down", "up", "mask")
PARTS = ("static", "dynamic")
_LINE = 16
"""Values of a cache line, on which everything begins."""


class Packed(NamedTuple):
    """What the compiled function is handed."""

    weights: np.ndarray
    """Flat, float32."""
    memory: np.ndarray
    """What a stream remembers before its first frame, and room to work in; flat, float32."""
    numbers: np.ndarray
    """Flat, int64: the plan (see ``frame``), the table of operations, the order of the bins."""


class Rows(NamedTuple):
    """Some channels in the memory, phase by phase."""

    start: int
    """Where phase 0 begins."""
    channels: int
    alive: int = frame.ALWAYS
    """Cell that tells whether there is anything in them but zeros."""


def pack(network: Network) -> Packed:
    """Weights of a network, laid out in the order in which a frame reads them."""
    packer = _Packer(network.config.stride, fold(network), fold_policy(network))
    for number in range(len(packer.layers)):
        packer.add_layer(number)
    return packer.finish()


class _Packer:
    """Lays a network out, layer by layer; `here` is where the layer before has written, one entry for each part."""

    def __init__(self, stride: int, layers: list[FoldedLayer], policy: Arrays | None):
        self.layers, self.policy, self.phases, self.bands = layers, policy, stride, BINS // stride
        self.width = width = -(-self.bands // COLUMNS) * COLUMNS
        self.cells, self.blocks, self.filled = frame.HEADER, [], 0
        self.tables: dict[str, list] = {part: [] for part in PARTS}
        self.skips: list[dict[str, Rows]] = []
        self.plan = np.zeros(frame.PLAN, np.int64)
        values = max(width * max(_rows_of_room(row, self.bands) for row in layers), transforms.ROOM)
        if policy is not None:
            values = max(values, width + 4 * policy["recurrent_bias"].shape[1] + len(policy["margins"]))
        self.plan[frame.ROOM] = self.work = self.room(values)
        self.plan[frame.SPECTRUM], self.plan[frame.MASK] = (self.room(2 * stride * width) for _ in range(2))
        self.plan[frame.PAST], self.plan[frame.OVERLAP] = (self.room(HOP) for _ in range(2))
        self.here = self.with_edges(layers[0], {"static": 6, "dynamic": 0})
        self.plan[frame.SEEN] = self.here["static"].start

    def weight(self, array: np.ndarray) -> int:
        """Append to the block of weights; returns its place."""
        flat = np.zeros(-(-array.size // _LINE) * _LINE, np.float32)
        flat[: array.size] = array.ravel()
        self.blocks.append(flat)
        self.filled += len(flat)
        return self.filled - len(flat)

    def room(self, values: int) -> int:
        """Values of memory; returns their place."""
        place = self.cells
        self.cells += -(-values // _LINE) * _LINE
        return place

    def add(self, part: str, kind: int, gate: int | None, *numbers: int) -> None:
        """Append an operation."""
        row = [kind, -1 if gate is None or part == "static" else gate, *numbers]
        self.tables[part].append(row + [0] * (ops.FIELDS - len(row)))

    # ------------------------------------------------------------------------------------------------ memory
    def with_edges(self, row: FoldedLayer, channels: dict[str, int]) -> dict[str, Rows]:
        """Rows for the input of a convolution, with room for the phases beside its own."""
        low, high = edges_of(row)
        rows = {}
        for part, count in channels.items():
            start = self.room((low + row.bands // self.bands + high) * count * self.width) + low * count * self.width
            rows[part] = Rows(start, count, frame.ALWAYS if part == "static" else self.room(1))
        return rows

    def side_by_side(self, channels: dict[str, int]) -> dict[str, Rows]:
        """Rows of the middle: a dynamic part reads all of them."""
        start = self.room(sum(channels.values()) * self.width)
        dynamic = Rows(start + channels["static"] * self.width, channels["dynamic"], self.room(1))
        return {"static": Rows(start, channels["static"]), "dynamic": dynamic}

    def output(self, number: int) -> dict[str, Rows]:
        """Where a layer is to write."""
        row = self.layers[number]
        if row.kind == "mask":
            return {part: Rows(int(self.plan[frame.MASK]), 2) for part in PARTS}
        if row.kind == "bands" or (row.kind not in CONVOLUTIONS and row.static is None):
            return {part: rows._replace(alive=frame.ALWAYS) for part, rows in self.here.items()}  # in place
        if row.kind not in CONVOLUTIONS:
            rows = self.side_by_side({part: rows.channels for part, rows in self.here.items()})
            return {part: one._replace(alive=frame.ALWAYS) for part, one in rows.items()}
        channels = {part: len(arrays["weight"]) if (arrays := getattr(row, part)) else 0 for part in PARTS}
        following = self.layers[number + 1]
        return self.side_by_side(channels) if following.kind == "bands" else self.with_edges(following, channels)

    # ------------------------------------------------------------------------------------------------ layers
    def add_layer(self, number: int) -> None:
        """Append the operations of a layer: what it always does and what it does behind its gate."""
        row, there = self.layers[number], self.output(number)
        skip = self.skips.pop() if row.kind == "up" else there if row.kind == "mask" else None
        if row.kind in CONVOLUTIONS:
            self.gather(number)
        elif row.kind == "bands":
            self.skips.pop()  # what enters the middle is no skip
        for part in PARTS:
            arrays = getattr(row, part)
            if arrays is None:
                continue
            if row.kind in CONVOLUTIONS:
                self.convolve(row, part, arrays, None if skip is None else skip[part], there[part])
            elif row.kind == "bands":
                place = self.weight(np.pad(arrays["offset"].T, ((0, 0), (0, self.width - self.bands))))
                rows = self.here[part]
                self.add(part, ops.BANDS, None, place, rows.start, rows.channels, rows.alive)
            else:
                inputs = self.here["static"].channels + (self.here["dynamic"].channels if part == "dynamic" else 0)
                ends = (inputs, self.here[part].channels, self.here[part].start, there[part].start)
                _RESIDUALS[row.kind](self, row, part, arrays, (*ends, self.here["static"].start))
        self.here = there
        if row.kind == "down":
            self.skips.append(there)

    def gather(self, number: int) -> None:
        """Lay the input of a convolution; behind the middle it is elsewhere."""
        row, source = self.layers[number], self.here
        low, high = edges_of(row)
        if number and self.layers[number - 1].kind not in CONVOLUTIONS:
            self.middle = self.here["static"]
            self.here = self.with_edges(row, {part: rows.channels for part, rows in source.items()})
            self.here["dynamic"] = self.here["dynamic"]._replace(alive=source["dynamic"].alive)
        for part, rows in self.here.items():
            if rows.channels and getattr(row, part) is not None:
                numbers = (source[part].start, rows.start, rows.channels, row.bands // self.bands, low, high, rows.alive)
                self.add(part, ops.GATHER, row.gate, *numbers)

    def convolve(self, row: FoldedLayer, part: str, arrays: Arrays, base: Rows | None, out: Rows) -> None:
        """A product of whole rows for each matrix that a convolution comes to."""
        static, dynamic = self.here["static"], self.here["dynamic"] if part == "dynamic" else Rows(0, 0)
        base = None if row.kind == "mask" and part == "static" else base
        phases, width = row.bands // self.bands, self.width
        step_in, step_out = (row.stride, 1) if row.kind == "down" else (1, row.stride)
        for taps in taps_of(row, arrays):
            count, _, units = taps.weight.shape
            slopes = [np.resize(arrays["slope"], units)] if "slope" in arrays else []
            parts = np.split(taps.weight, [static.channels], axis=1)
            matrix = np.concatenate([one.reshape(-1, units) for one in parts])
            place = self.weight(np.stack([np.resize(arrays["bias"], units), *matrix, *slopes]))
            step = (units if row.kind == "mask" else step_out * units) * width
            shift = taps.shift * units * width
            self.add(
                part, ops.CONVOLVE, row.gate, place, units, len(slopes), phases // step_in,
                static.start + taps.first * static.channels * width, step_in * static.channels * width,
                count * static.channels, dynamic.start + taps.first * dynamic.channels * width,
                step_in * dynamic.channels * width, count * dynamic.channels, out.start + shift, step,
                -1 if base is None else base.start + shift, step, dynamic.alive,
                frame.ALWAYS if base is None else base.alive, out.alive,
            )  # fmt: skip

    def attention(self, row: FoldedLayer, part: str, arrays: Arrays, ends: tuple) -> None:
        """Queries, keys and values of all heads are one product."""
        _, heads, size, inputs = arrays["input"].shape
        first = self.weight(_biased(arrays["input"].reshape(-1, inputs), arrays["input_bias"].ravel()))
        second = self.weight(_biased(arrays["out"], arrays["out_bias"]))
        self.add(part, ops.ATTENTION, row.gate, *ends, first, second, heads, size, self.work)

    def linear(self, row: FoldedLayer, part: str, arrays: Arrays, ends: tuple) -> None:
        """The slopes of the first product are zero."""
        hidden = len(arrays["up"])
        first = self.weight(np.pad(_biased(arrays["up"], arrays["up_bias"]), ((0, 1), (0, 0))))
        second = self.weight(_biased(arrays["down"], arrays["down_bias"]))
        self.add(part, ops.LINEAR, row.gate, *ends, first, second, hidden, self.work)

    def recurrent(self, row: FoldedLayer, part: str, arrays: Arrays, ends: tuple) -> None:
        """Of a group: reset and update from input and state at once, new from the input, new from the state."""
        groups, _, size, _ = arrays["input"].shape
        rows = []
        for given, bias, own, own_bias in zip(
            *(arrays[name] for name in ("input", "input_bias", "recurrent", "recurrent_bias")), strict=True
        ):
            both = np.concatenate([given[:2], own[:2]], axis=-1).reshape(2 * size, -1)
            rows.append(
                [
                    _biased(both, (bias[:2] + own_bias[:2]).ravel()), _biased(given[2], bias[2]),
                    _biased(own[2], own_bias[2]),
                ]
            )  # fmt: skip
        flat = np.concatenate([matrix.ravel() for group in rows for matrix in group])
        first, step = self.weight(flat), len(flat) // groups
        second = self.weight(_biased(arrays["out"], arrays["out_bias"]))
        states = self.room(groups * size * self.width)
        self.add(part, ops.RECURRENT, row.gate, *ends, first, step, second, groups, size, states, self.work)

    def decide(self, arrays: Arrays) -> list[int]:
        """The policy's operation."""
        size, pooled = arrays["recurrent_bias"].shape[1], arrays["pooling"].shape[1]
        # Row p * F + f of the pooling is bin P f + p.
        pooling = arrays["pooling"].reshape(self.bands, self.phases, pooled).transpose(1, 0, 2)
        new_first = np.r_[2 * size : 3 * size, : 2 * size]  # the library has reset, update, new
        given, bias = arrays["input"].reshape(3 * size, -1)[new_first], arrays["input_bias"].ravel()[new_first]
        own = _biased(arrays["recurrent"].reshape(3 * size, size), arrays["recurrent_bias"].ravel())
        first = self.weight(np.concatenate([given.T, bias[None], own]))
        second = self.weight(_biased(arrays["margins"], arrays["margins_bias"]))
        state = self.room(given.shape[1] + 1 + size)
        mask, seen = self.plan[frame.MASK], self.plan[frame.SEEN]
        places = (self.phases, seen, mask, self.middle.start, self.middle.channels, state)
        return [0, -1, *places, self.weight(pooling), pooled, first, second, size, self.work]

    def finish(self) -> Packed:
        """All of it."""
        plan, table = self.plan, self.tables["static"] + self.tables["dynamic"]
        plan[[frame.WIDTH, frame.BANDS, frame.PHASES]] = self.width, self.bands, self.phases
        plan[[frame.STATIC, frame.DYNAMIC, frame.END]] = 0, len(self.tables["static"]), len(table)
        if self.policy is not None:
            plan[frame.POLICY] = len(table)
            row = self.decide(self.policy)
            table.append(row + [0] * (ops.FIELDS - len(row)))
        order, signs = transforms.orders(self.phases, self.width)
        names = (
            frame.FORWARD_1, frame.FORWARD_2, frame.BACKWARD_2, frame.BACKWARD_1, frame.TWIDDLE, frame.WINDOWED,
            frame.SIGNS,
        )  # fmt: skip
        for name, matrix in zip(names, [*transforms.matrices(), signs], strict=True):
            plan[name] = self.weight(matrix)
        memory = np.zeros(self.cells, np.float32)
        memory[frame.ALWAYS] = 1
        flat = np.array(table, np.int64).ravel()
        plan[frame.ORDER] = len(plan) + len(flat)
        return Packed(np.concatenate(self.blocks), memory, np.concatenate([plan, flat, order.ravel()]))


_RESIDUALS = {"attention": _Packer.attention, "linear": _Packer.linear, "recurrent": _Packer.recurrent}


def _biased(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[1 + K, N] of weight [N, K] and bias [N], as a product reads it."""
    return np.concatenate([bias[None], weight.T])


def _rows_of_room(row: FoldedLayer, bands: int) -> int:
    """Rows that a layer needs to work in."""
    parts = [part for part in (row.static, row.dynamic) if part is not None]
    if row.kind == "attention":
        sizes = [part["input"].shape[1] * part["input"].shape[2] for part in parts]
        return 4 * max(sizes) + bands + 2
    if row.kind == "linear":
        return max(len(part["up"]) for part in parts)
    if row.kind == "recurrent":
        return 4 * max(part["input"].shape[2] for part in parts)
    return 0
