"""The network as an ONNX graph of one frame: spectrum, gates and states in, spectrum, gates and states out.

Each gated part sits in the two branches of an `If`: one with all of the layer's units, one with the static units alone.
What is closed is not run. The policy is part of the graph, and each gate can be set from outside. Few, wide nodes: 133
on an open frame.

Inputs, outputs and everything needed to feed the graph (rates, window, state shapes, gate names, counting rule) stand in
its metadata.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsn_lite.audio.files import replacing
from dsn_lite.audio.spectral import BINS, COMPRESSION, FRAMES_PER_SECOND, HOP, SAMPLE_RATE, WINDOW
from dsn_lite.errors import InputError
from dsn_lite.macs import count
from dsn_lite.model import GATES, Network

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""Versions of the file: ONNX Runtime 1.13 and later read it."""
_BANDS = (129, 65, 33)


class _Graph:
    """Nodes in the making; a branch shares the weights and the counter of names with the graph around it."""

    def __init__(self, parent: _Graph | None = None):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = parent.weights if parent else {}
        self._numbers: list[int] = parent._numbers if parent else [0]

    def _name(self, kind: str) -> str:
        self._numbers[0] += 1
        return f"{kind}_{self._numbers[0]}"

    def weight(self, array) -> str:
        """A constant; tensors are detached."""
        array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
        array = np.ascontiguousarray(array, np.int64 if array.dtype.kind == "i" else np.float32)
        for name, known in self.weights.items():
            if known.shape == array.shape and known.dtype == array.dtype and np.array_equal(known, array, equal_nan=True):
                return name
        name = self._name("weight")
        self.weights[name] = array
        return name

    def add(self, kind: str, *inputs, outputs: int | list[str] = 1, **attributes):
        """Append a node; arrays among the inputs become weights. Returns the name of its output, or their list."""
        from onnx import helper

        names = [item if isinstance(item, str) else self.weight(item) for item in inputs]
        results = outputs if isinstance(outputs, list) else [self._name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, results, name=self._name(kind), **attributes))
        return results[0] if len(results) == 1 else results

    def choose(self, gate: str | None, build: Callable[[_Graph, bool], list[str]], shapes: list[tuple]):
        """Outputs of `build(graph, is_open)`: inline where there is no gate, else in the branches of an `If`."""
        from onnx import TensorProto, helper

        if gate in ("always", "absent"):
            results = build(self, gate == "always")
        else:
            branches = {}
            for name, is_open in (("then_branch", True), ("else_branch", False)):
                inner = _Graph(self)
                outputs = build(inner, is_open)
                infos = [
                    helper.make_tensor_value_info(o, TensorProto.FLOAT, s) for o, s in zip(outputs, shapes, strict=True)
                ]
                branches[name] = helper.make_graph(inner.nodes, self._name(name), [], infos)
            results = self.add("If", gate, outputs=len(shapes), **branches)
            results = [results] if isinstance(results, str) else results
        return results[0] if len(shapes) == 1 else results


def build(network: Network) -> onnx.ModelProto:
    """The graph of one frame of a network.

    Examples
    --------
    >>> from dsn_lite.config import Config
    >>> model = build(Network(Config.preset("tiny")).eval())
    >>> [item.name for item in model.graph.output][:2]
    ['enhanced', 'gates_used']
    """
    from onnx import TensorProto, checker, helper

    graph, config = _Graph(), network.config
    states = _states(network)
    compressed = _compress(graph)
    if config.parts == "gated":
        gates = _policy(graph, network.policy, compressed)
    else:
        gates = [config.parts] * len(GATES)
    mask = _mask(graph, network, gates, compressed)
    _expand(graph, mask, compressed)
    graph.nodes.append(helper.make_node("Identity", [compressed], ["next_past"]))
    inputs = {"spectrum": (1, 2, 1, BINS)}
    if config.parts == "gated":
        inputs |= {"gates": (len(GATES),), "shift": (1,)}
    outputs = {"enhanced": (1, 2, 1, BINS)}
    if config.parts == "gated":
        outputs["gates_used"] = (len(GATES),)
    inputs |= states
    outputs |= {f"next_{name}": shape for name, shape in states.items()}
    describe = lambda items: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in items.items()]
    proto = helper.make_graph(
        graph.nodes, "dsn_lite_frame", describe(inputs), describe(outputs),
        [_tensor(name, array) for name, array in graph.weights.items()],
    )  # fmt: skip
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dsn-lite"
    )
    helper.set_model_props(model, _metadata(network, states))
    checker.check_model(model, full_check=True)
    return model


def _tensor(name: str, array: np.ndarray):
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


def _states(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of what a caller carries from frame to frame; all begin as zero."""
    gru = network.time.gru
    states = {"past": (1, 2, 1, BINS), "groups": (gru.static, _BANDS[2], gru.group_width)}
    if gru.dynamic:
        states["dynamic_groups"] = (gru.dynamic, _BANDS[2], gru.group_width)
    if network.config.parts == "gated":
        states["policy"] = (1, 1, network.policy.width)
    return states


def _metadata(network: Network, states: dict[str, tuple[int, ...]]) -> dict[str, str]:
    counted = count(network)
    values = {
        "name": network.name, "sample_rate": SAMPLE_RATE, "window": WINDOW, "hop": HOP, "bins": BINS,
        "window_shape": "square root of a periodic Hann window, in analysis and synthesis",
        "framing": "frame t covers the samples [(t - 1) hop, (t + 1) hop); latency is one window",
        "spectrum": "[1, real and imaginary, 1, bins], not compressed",
        "gate_names": network.gate_names,
        "gates": "1 open, 0 closed, below 0 the policy decides; shift is added to each open logit",
        "states": {name: list(shape) for name, shape in states.items()},
        "states_begin": "zero; output next_NAME is the next frame's input NAME",
        "mmacs_per_second": {"open": counted.open, "closed": counted.closed},
        "gate_macs": counted.gate_macs.tolist(), "frames_per_second": FRAMES_PER_SECOND,
        "counting": counted.to_json()["rule"], "opset": OPSET, "network": network.config.to_dict(),
    }  # fmt: skip
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


# ------------------------------------------------------------------------------------------------ parts of the graph
def _compress(g: _Graph) -> str:
    power = g.add("ReduceSum", g.add("Mul", "spectrum", "spectrum"), np.array([1]))
    scale = g.add("Pow", g.add("Add", power, np.float32(1e-12)), np.float32((COMPRESSION - 1) / 2))
    return g.add("Mul", "spectrum", scale)


def _policy(g: _Graph, policy, compressed: str) -> list[str]:
    """Conditions of the ten gates."""
    gru = policy.recurrent
    # ONNX orders the gates of a GRU update, reset, new; PyTorch reset, update, new.
    reorder = lambda p: np.concatenate([np.split(p.detach().cpu().numpy(), 3)[i] for i in (1, 0, 2)])
    magnitude = g.add("ReduceL2", compressed, axes=[1], keepdims=0)  # [1, 1, F]
    pooled = g.add("MatMul", magnitude, policy.pooling)
    bias = np.concatenate([reorder(gru.bias_ih_l0), reorder(gru.bias_hh_l0)])[None]
    names = [g._name("hidden"), "next_policy"]
    g.add(
        "GRU", pooled, reorder(gru.weight_ih_l0)[None], reorder(gru.weight_hh_l0)[None], bias, "", "policy",
        outputs=names, hidden_size=policy.width, linear_before_reset=1,
    )  # fmt: skip
    weight, offset = policy.logits.weight, policy.logits.bias
    hidden = g.add("Reshape", "next_policy", np.array([1, -1]))
    margin = g.add("Gemm", hidden, weight[1::2] - weight[::2], offset[1::2] - offset[::2], transB=1)
    own = g.add("Greater", g.add("Add", g.add("Reshape", margin, np.array([-1])), "shift"), np.float32(0))
    own = g.add("Cast", own, to=1)
    g.add("Where", g.add("Less", "gates", np.float32(0)), own, "gates", outputs=["gates_used"])
    # `If` wants bool, and ONNX Runtime splits no bool.
    return [g.add("Cast", part, to=9) for part in g.add("Split", "gates_used", outputs=len(GATES))]


def _mask(g: _Graph, network: Network, gates: list[str], compressed: str) -> str:
    channels, slopes = network.config.channels, network.slopes
    past = g.add("Concat", "past", compressed, axis=2)
    conv = network.encoder_1.conv
    x = g.add("Conv", past, conv.weight, conv.bias, strides=[1, 2], pads=[0, 2, 0, 2])
    skip_1 = g.add("PRelu", x, slopes[0][:, None, None])
    skip_2 = _convolution(g, network.encoder_2, gates[0], skip_1, slopes[1], _BANDS[1])
    x = _convolution(g, network.encoder_3, gates[1], skip_2, slopes[2], _BANDS[2])
    x = g.add("Transpose", g.add("Reshape", x, np.array([channels[2], _BANDS[2]])), perm=[1, 0])
    x = g.add("Add", x, network.band_embedding)
    for block, (first, second) in ((network.frequency_1, gates[2:4]), (network.time, gates[4:6]),
                                   (network.frequency_2, gates[6:8])):  # fmt: skip
        x = _recurrence(g, block.gru, first, x) if block is network.time else _attention(g, block.attention, first, x)
        x = _feed_forward(g, block.feed_forward, second, x)
    x = g.add("Reshape", g.add("Transpose", x, perm=[1, 0]), np.array([1, channels[2], 1, _BANDS[2]]))
    x = g.add("Add", _convolution(g, network.decoder_3, gates[8], x, slopes[3], _BANDS[1]), skip_2)
    x = g.add("Add", _convolution(g, network.decoder_2, gates[9], x, slopes[4], _BANDS[0]), skip_1)
    conv = network.decoder_1.conv
    return g.add("ConvTranspose", x, conv.weight, conv.bias, strides=[1, 2], pads=[0, 2, 0, 2])


def _convolution(g: _Graph, block, gate: str, x: str, slopes, bands: int) -> str:
    """Encoder or decoder step with its PReLU; closed channels are zero."""
    is_transposed = hasattr(block, "kernel") and isinstance(block.kernel, int)
    kind = "ConvTranspose" if is_transposed else "Conv"
    outputs = block.static + block.dynamic + block.absent

    def part(inner: _Graph, is_open: bool) -> list[str]:
        n = block.static + (block.dynamic if is_open else 0)
        weight = block.conv.weight[:, :n] if is_transposed else block.conv.weight[:n]
        y = inner.add(kind, x, weight, block.conv.bias[:n], strides=[1, 2], pads=[0, 1, 0, 1])
        y = inner.add("PRelu", y, slopes[:n, None, None])
        if n < outputs:
            y = inner.add("Concat", y, np.zeros((1, outputs - n, 1, bands)), axis=1)
        return [y]

    return g.choose(gate, part, [(1, outputs, 1, bands)])


def _normalise(g: _Graph, x: str, channels: int) -> str:
    return g.add("LayerNormalization", x, np.ones(channels), axis=-1, epsilon=1e-5)


def _feed_forward(g: _Graph, block, gate: str, x: str) -> str:
    normal = _normalise(g, x, block.channels)

    def part(inner: _Graph, is_open: bool) -> list[str]:
        n = block.static + (block.dynamic if is_open else 0)
        hidden = inner.add("Relu", inner.add("Gemm", normal, block.up.weight[:n].T, block.up.bias[:n]))
        return [inner.add("Gemm", hidden, block.down.weight[:, :n].T, block.down.bias)]

    return g.add("Add", x, g.choose(gate, part, [(_BANDS[2], block.channels)]))


def _attention(g: _Graph, block, gate: str, x: str) -> str:
    normal, width = _normalise(g, x, block.channels), block.head_width
    shape = (3, block.static + block.dynamic, width)
    weight = block.query_key_value.weight.detach().unflatten(0, shape).clone()
    bias = block.query_key_value.bias.detach().unflatten(0, shape).clone()
    weight[0] *= width**-0.5
    bias[0] *= width**-0.5

    def part(inner: _Graph, is_open: bool) -> list[str]:
        n = block.static + (block.dynamic if is_open else 0)
        y = inner.add("Gemm", normal, weight[:, :n].flatten(0, 2).T, bias[:, :n].flatten())
        y = inner.add("Reshape", y, np.array([_BANDS[2], 3 * n, width]))
        y = inner.add("Transpose", y, perm=[1, 0, 2])
        query, key, value = inner.add("Split", y, outputs=3, axis=0)
        scores = inner.add("MatMul", query, inner.add("Transpose", key, perm=[0, 2, 1]))
        mixed = inner.add("MatMul", inner.add("Softmax", scores, axis=-1), value)
        mixed = inner.add("Reshape", inner.add("Transpose", mixed, perm=[1, 0, 2]), np.array([_BANDS[2], n * width]))
        return [inner.add("Gemm", mixed, block.out.weight[:, : n * width].T, block.out.bias)]

    return g.add("Add", x, g.choose(gate, part, [(_BANDS[2], block.channels)]))


def _recurrence(g: _Graph, block, gate: str, x: str) -> str:
    normal, width = _normalise(g, x, block.channels), block.group_width
    shapes = [(_BANDS[2], block.channels), (block.static, _BANDS[2], width), (block.dynamic, _BANDS[2], width)]

    def part(inner: _Graph, is_open: bool) -> list[str]:
        n = block.static + (block.dynamic if is_open else 0)
        stack = lambda name: np.stack([getattr(group, name).detach().numpy() for group in block.groups[:n]])
        bias, own_bias = stack("bias_ih_l0"), stack("bias_hh_l0")
        bias[:, : 2 * width] += own_bias[:, : 2 * width]
        is_both = is_open and block.dynamic
        state = inner.add("Concat", "groups", "dynamic_groups", axis=0) if is_both else "groups"
        given = inner.add("MatMul", normal, stack("weight_ih_l0").transpose(0, 2, 1))
        given = inner.add("Add", given, bias[:, None])  # [groups, bands, 3 width]
        own = inner.add("MatMul", state, stack("weight_hh_l0").transpose(0, 2, 1))
        cut = np.array([2 * width, width])
        given_gates, given_new = inner.add("Split", given, cut, outputs=2, axis=-1)
        own_gates, own_new = inner.add("Split", own, cut, outputs=2, axis=-1)
        own_new = inner.add("Add", own_new, own_bias[:, None, 2 * width :])
        both = inner.add("Sigmoid", inner.add("Add", given_gates, own_gates))
        reset, update = inner.add("Split", both, outputs=2, axis=-1)
        new = inner.add("Tanh", inner.add("Add", given_new, inner.add("Mul", reset, own_new)))
        state = inner.add("Add", new, inner.add("Mul", update, inner.add("Sub", state, new)))
        y = inner.add("Reshape", inner.add("Transpose", state, perm=[1, 0, 2]), np.array([_BANDS[2], n * width]))
        y = inner.add("Gemm", y, block.out.weight[:, : n * width].T, block.out.bias)
        if is_both:
            return [y, *inner.add("Split", state, np.array([block.static, block.dynamic]), outputs=2, axis=0)]
        return [y, state, *([inner.add("Identity", "dynamic_groups")] if block.dynamic else [])]

    y, *states = g.choose(gate, part, shapes if block.dynamic else shapes[:2])
    for state, name in zip(states, ("next_groups", "next_dynamic_groups"), strict=False):
        g.add("Identity", state, outputs=[name])
    return g.add("Add", x, y)


def _expand(g: _Graph, mask: str, compressed: str) -> None:
    """Complex product of mask and compressed spectrum, then the inverse of the compression."""
    re, im = g.add("Split", compressed, outputs=2, axis=1)
    swapped = g.add("Concat", im, re, axis=1)
    mask_re, mask_im = g.add("Split", mask, outputs=2, axis=1)
    signed = g.add("Mul", g.add("Mul", swapped, mask_im), np.array([-1.0, 1.0]).reshape(1, 2, 1, 1))
    product = g.add("Add", g.add("Mul", compressed, mask_re), signed)
    power = g.add("ReduceSum", g.add("Mul", product, product), np.array([1]))
    scale = g.add("Pow", power, np.float32((1 / COMPRESSION - 1) / 2))
    g.add("Mul", product, scale, outputs=["enhanced"])


def count_nodes(model: onnx.ModelProto, *, is_open: bool = True) -> int:
    """Nodes that run on a frame with every gate open, or with every gate closed."""
    branch = "then_branch" if is_open else "else_branch"
    total = len(model.graph.node)
    for node in model.graph.node:
        total += sum(len(attribute.g.node) for attribute in node.attribute if attribute.name == branch)
    return total


def save(network: Network, path: str | Path) -> onnx.ModelProto:
    """Write the graph to a file, under a temporary name that is then renamed; returns it."""
    model = build(network)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return model


class OnnxEngine:
    """Runs frames through ONNX Runtime on one thread; see `dsn_lite.engine.engines.Engine`.

    Parameters
    ----------
    source : Network, or a file that `dsn-lite export` wrote
    shift : added to each open logit; see `Network.budget_shift`.
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
            self._is_gated = json.loads(properties["network"])["parts"] == "gated"
        except Exception as error:  # ONNX Runtime has a dozen kinds
            name = source.name if isinstance(source, Network) else source
            reason = " ".join(str(error).split())[:150]
            raise InputError(f"{name}: not a graph of dsn-lite ({reason}); export it again") from None
        self._outputs = [item.name for item in self.session.get_outputs()]
        self._shift = np.array([shift], np.float32)
        self._ask = np.full(len(self.gate_names), -1, np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.states = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}

    def copy(self) -> OnnxEngine:
        """An engine in the same state; the session is shared."""
        twin = copy.copy(self)
        twin.states = dict(self.states)
        return twin

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See `dsn_lite.engine.engines.Engine`."""
        frames = len(spectrum)
        planes = np.stack([spectrum.real, spectrum.imag], axis=1).astype(np.float32)
        out, used = np.empty((frames, 2, BINS), np.float32), np.empty((frames, len(self.gate_names)), np.uint8)
        for t in range(frames):
            feed = {"spectrum": planes[t][None, :, None], **self.states}
            if self._is_gated:
                feed |= {"gates": self._ask if gates is None else gates[t].astype(np.float32), "shift": self._shift}
            results = dict(zip(self._outputs, self.session.run(None, feed), strict=True))
            out[t] = results["enhanced"][0, :, 0]
            if self._is_gated:
                used[t] = results["gates_used"]
            self.states = {name: results[f"next_{name}"] for name in self.states}
        return out[:, 0] + 1j * out[:, 1], used
