"""The network as an ONNX graph of one frame: spectrum, gates and states in, spectrum, gates and states out.

It goes over the table of layers. Neighbouring layers behind one gate lie under one `If`, and the whole refinement under
another one: what is closed is not run, and a closed frame meets a single branch. The policy is part of the graph, and each
gate can be set from outside.

Inputs, outputs and everything needed to feed the graph (rates, window, state shapes, gate names, counting rule) stand in
its metadata.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsn_lite.audio.files import replacing
from dsn_lite.audio.spectral import BINS, FRAMES_PER_SECOND, HOP, SAMPLE_RATE, WINDOW
from dsn_lite.engine.graph import Graph
from dsn_lite.engine.graph_parts import answer, convolution, decide, residual, see, state_name, to_image, to_rows
from dsn_lite.errors import InputError, one_line
from dsn_lite.network.folded import FoldedLayer, fold, fold_policy
from dsn_lite.network.macs import count
from dsn_lite.network.model import BINS as SEEN
from dsn_lite.network.model import Network

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""Versions of the file: ONNX Runtime 1.13 and later read it."""
CONVOLUTIONS = ("down", "up", "mask")


def build(network: Network) -> onnx.ModelProto:
    """The graph of one frame of a network.

    >>> from dsn_lite.network.config import Config
    >>> model = build(Network(Config.preset("tiny")).eval())
    >>> [item.name for item in model.graph.output][:2]
    ['enhanced', 'gates_used']
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    g, rows, states = Graph(), fold(network), _states(network)
    inputs, outputs = {"spectrum": (1, 2, 1, BINS)}, {"enhanced": (1, 2, 1, BINS)}
    gate_count = len(network.gate_names)
    if gate_count:
        inputs |= {"gates": (gate_count,), "shift": (1,)}
        outputs |= {"gates_used": (gate_count,)}
    compressed, features, magnitude = see(g)
    given, small = _small(g, rows, features)
    if gate_count:
        middle = next(x for x, row in zip(given, rows, strict=True) if row.kind in ("up", "mask"))
        decide(g, fold_policy(network), magnitude, small, middle, gate_count)
    answer(g, _refined(g, rows, given, small, gate_count), compressed)
    inputs |= states
    outputs |= {f"next_{name}": shape for name, shape in states.items()}
    describe = lambda items: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in items.items()]
    proto = helper.make_graph(
        g.nodes, "dsn_lite_frame", describe(inputs), describe(outputs),
        [numpy_helper.from_array(array, name) for name, array in g.weights.items()],
    )  # fmt: skip
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dsn-lite"
    )
    helper.set_model_props(model, _metadata(network, states))
    checker.check_model(model, full_check=True)
    return model


def _states(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of what a caller carries from frame to frame; all begin as zero."""
    states: dict[str, tuple[int, ...]] = {"level": (1, 1, 1, 1), "past": (1, 3, 1, SEEN)}
    for row in fold(network):
        for part in ("static", "dynamic") if row.kind == "recurrent" else ():
            if arrays := getattr(row, part):
                groups, _, width, _ = arrays["input"].shape
                states[state_name(row, part)] = (groups, row.bands, width)
    if network.policy is not None:
        states["policy"] = (1, 1, network.policy.width)
    return states


def _metadata(network: Network, states: dict[str, tuple[int, ...]]) -> dict[str, str]:
    counted = count(network)
    values = {
        "name": network.name, "sample_rate": SAMPLE_RATE, "window": WINDOW, "hop": HOP, "bins": BINS,
        "window_shape": "square root of a periodic Hann window, in analysis and synthesis",
        "framing": "frame t covers the samples [(t - 1) hop, (t + 1) hop); latency is one window",
        "offset": "before the frames a one-pole high-pass at 2 Hz, whose running mean begins with that of the first hop",
        "spectrum": "[1, real and imaginary, 1, bins], not compressed",
        "gate_names": network.gate_names, "decides": network.policy is not None,
        "gates": "1 open, 0 closed, below 0 the policy decides; shift is added to each of its margins",
        "states": {name: list(shape) for name, shape in states.items()},
        "states_begin": "zero; output next_NAME is the next frame's input NAME",
        "mmacs_per_second": {"open": counted.open, "closed": counted.closed},
        "gate_macs": counted.gate_macs.tolist(), "frames_per_second": FRAMES_PER_SECOND,
        "counting": counted.to_json()["rule"], "opset": OPSET, "network": network.config.to_dict(),
    }  # fmt: skip
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


# ------------------------------------------------------------------------------------------------ the table of layers
def _small(g: Graph, rows: list[FoldedLayer], x: str) -> tuple[list[str], str]:
    """Static input of every layer, and the mask of the small network [1, 2, 1, 256]."""
    given, skips = [], []
    for before, row in zip([None, *rows], rows, strict=False):
        if row.kind in CONVOLUTIONS and before and before.kind not in CONVOLUTIONS:
            x = to_image(g, x, row)
        given.append(x)
        if row.kind == "bands":
            skips.pop()  # what enters the middle is no skip
            x = g.add("Add", to_rows(g, x, row), row.static["offset"])
        elif row.kind in CONVOLUTIONS:
            x = convolution(g, row, row.static, x)
            x = g.add("Add", x, skips.pop()) if row.kind == "up" else x
            skips += [x] * (row.kind == "down")
        elif row.static:
            y, state = residual(g, row, "static", x)
            x = g.add("Add", x, y)
            if state:
                g.add("Identity", state, outputs=[f"next_{state_name(row, 'static')}"])
    return given, x


def _refined(g: Graph, rows: list[FoldedLayer], given: list[str], small: str, gate_count: int) -> str:
    """The small mask with the correction that open gates add to it."""
    if not rows[-1].dynamic:
        return small
    states = [f"next_{state_name(row, 'dynamic')}" for row in rows if row.kind == "recurrent"]
    if not gate_count:
        mask, *ends = _refinement(g, rows, given, small, None)
    else:
        gates = [g.add("Cast", part, to=9) for part in g.listed("Split", "gates_used", count=gate_count)]
        is_needed = g.add("Cast", g.add("ReduceMax", "gates_used", keepdims=0), to=9)

        def build(inner: Graph, is_open: bool) -> list[str]:
            return _refinement(inner, rows, given, small, gates) if is_open else [
                small, *(state.removeprefix("next_") for state in states)
            ]  # fmt: skip

        mask, *ends = g.choose(is_needed, build, 1 + len(states))
    for end, state in zip(ends, states, strict=True):
        g.add("Identity", end, outputs=[state])
    return mask


def _refinement(g: Graph, rows: list[FoldedLayer], given: list[str], small: str, gates: list[str] | None) -> list[str]:
    """The refined mask and the new states of the dynamic groups; neighbours behind one gate share a branch."""
    y, skips, states = "", [], []
    numbered = list(zip([None, *rows[:-1]], rows, given, strict=True))
    for gate, group in groupby(numbered, key=lambda item: item[1].gate):
        members = list(group)
        build = partial(_segment, members=members, y=y, skips=tuple(skips), small=small)
        kinds = [row.kind for _, row, _ in members]
        downs, recurrent = kinds.count("down"), kinds.count("recurrent")
        is_gated = gate is not None and gates is not None
        results = g.choose(gates[gate], build, 1 + downs + recurrent) if is_gated else build(g, True)
        left = len(skips) - kinds.count("up") - kinds.count("bands")
        y, skips = results[0], [*skips[:left], *results[1 : 1 + downs]]
        states += results[1 + downs :]
    return [y, *states]


def _segment(g: Graph, is_open: bool, *, members: list[tuple], y: str, skips: tuple[str, ...], small: str) -> list[str]:
    """Dynamic part of neighbouring layers: the last result, that of each layer down, the new states."""
    waiting, downs, states = list(skips), [], []
    for before, row, x in members:
        arrays = row.dynamic
        units = len(arrays["weight"]) if row.kind in CONVOLUTIONS else 0
        if row.kind == "bands":
            waiting.pop()
            y = g.add("Add", to_rows(g, y, row), arrays["offset"])
        elif row.kind in CONVOLUTIONS:
            if is_open:
                y = to_image(g, y, row) if before and before.kind not in CONVOLUTIONS else y
                both = g.add("Concat", x, y, axis=1) if y else x
                correction = convolution(g, row, arrays, both)
            skip = waiting.pop() if row.kind == "up" else small if row.kind == "mask" else ""
            if skip:
                y = g.add("Add", correction, skip) if is_open else skip
            else:
                y = correction if is_open else g.weight(np.zeros((1, units, 1, -(-row.bands // row.stride))))
            if row.kind == "down":
                waiting.append(y)
                downs.append(y)
        elif is_open:
            result, state = residual(g, row, "dynamic", g.add("Concat", x, y, axis=1))
            y = g.add("Add", y, result)
            states += [state] * bool(state)
        elif row.kind == "recurrent":
            states.append(state_name(row, "dynamic"))
    return [y, *downs, *states]


def save(network: Network, path: str | Path) -> onnx.ModelProto:
    """Write the graph to a file, under a temporary name that is then renamed; returns it."""
    model = build(network)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return model


class OnnxEngine:
    """Runs frames of a network, or of a file that :func:`save` wrote, through ONNX Runtime on one thread.

    See `dsn_lite.engine.engines.Engine`; `shift` is added to each margin of the policy.
    """

    name = "onnx"

    def __init__(self, source: Network | str | Path, shift: float = 0.0):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = build(source).SerializeToString() if isinstance(source, Network) else str(source)
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            properties = self.session.get_modelmeta().custom_metadata_map
            self.gate_names = json.loads(properties["gate_names"])
            self._shapes = json.loads(properties["states"])
            decides = json.loads(properties["decides"])
        except Exception as error:  # ONNX Runtime has a dozen kinds
            name = source.name if isinstance(source, Network) else source
            raise InputError(f"{name}: not a graph of dsn-lite ({one_line(error)[:150]}); export it again") from None
        self._outputs = [item.name for item in self.session.get_outputs()]
        self._inputs = {item.name for item in self.session.get_inputs()}
        self._shift = np.array([shift], np.float32)
        self._ask = np.full(len(self.gate_names), -1 if decides else 1, np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.states = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See `dsn_lite.engine.engines.Engine`."""
        frames = len(spectrum)
        planes = np.stack([spectrum.real, spectrum.imag], axis=1).astype(np.float32)
        out, used = np.empty((frames, 2, BINS), np.float32), np.empty((frames, len(self.gate_names)), np.uint8)
        for t in range(frames):
            feed = {"spectrum": planes[t][None, :, None], "shift": self._shift, **self.states}
            feed["gates"] = self._ask if gates is None else gates[t].astype(np.float32)
            feed = {name: value for name, value in feed.items() if name in self._inputs}
            results = dict(zip(self._outputs, self.session.run(None, feed), strict=True))
            out[t] = results["enhanced"][0, :, 0]
            used[t] = results.get("gates_used", self._ask)
            self.states = {name: results[f"next_{name}"] for name in self.states}
        return out[:, 0] + 1j * out[:, 1], used
