"""The parts of the ONNX graph of one frame: what the network sees, each kind of layer, the policy, the answer."""

from __future__ import annotations

import numpy as np

from dsn_lite.audio.spectral import COMPRESSION
from dsn_lite.engine.graph import Graph
from dsn_lite.network.folded import Arrays, FoldedLayer
from dsn_lite.network.model import BINS as SEEN
from dsn_lite.network.model import RELEASE


def state_name(row: FoldedLayer, part: str) -> str:
    """Name of what a layer's GRU remembers."""
    return f"{row.name} {part}".replace(" ", "_")


def see(g: Graph) -> tuple[str, str, str]:
    """Compressed spectrum [1, 2, 1, 256], what the network sees [1, 6, 1, 256], magnitude over the level [1, 1, 256]."""
    kept = g.add("Slice", "spectrum", np.array([0]), np.array([SEEN]), np.array([3]))
    power = g.add("ReduceSum", g.add("Mul", kept, kept), np.array([1]))
    scale = g.add("Pow", g.add("Add", power, np.float32(1e-20)), np.float32((COMPRESSION - 1) / 2))
    compressed = g.add("Mul", kept, scale)
    magnitude = g.add("ReduceL2", compressed, axes=[1])
    mean = g.add("ReduceMean", magnitude, axes=[3])
    fallen = g.add("Add", g.add("Mul", "level", np.float32(RELEASE)), g.add("Mul", mean, np.float32(1 - RELEASE)))
    level = g.add("Max", mean, fallen, np.full((1, 1, 1, 1), 1e-3), outputs=["next_level"])
    seen = g.add("Div", g.add("Concat", compressed, magnitude, axis=1), level, outputs=["next_past"])
    features = g.add("Concat", seen, "past", axis=1)
    return compressed, features, g.add("Reshape", g.add("Div", magnitude, level), np.array([1, 1, SEEN]))


def to_rows(g: Graph, x: str, row: FoldedLayer) -> str:
    """[F, C] of [1, C, 1, F]."""
    return g.add("Transpose", g.add("Reshape", x, np.array([-1, row.bands])), perm=[1, 0])


def to_image(g: Graph, x: str, row: FoldedLayer) -> str:
    """[1, C, 1, F] of [F, C]."""
    return g.add("Reshape", g.add("Transpose", x, perm=[1, 0]), np.array([1, -1, 1, row.bands]))


def convolution(g: Graph, row: FoldedLayer, arrays: Arrays, x: str) -> str:
    """A convolution along frequency with its PReLU, [1, C, 1, F] to [1, C', 1, F']."""
    weight = arrays["weight"][:, :, None]
    half = weight.shape[-1] // 2
    options = {"strides": [1, row.stride], "pads": [0, half, 0, half]}
    if row.kind == "down":
        y = g.add("Conv", x, weight, arrays["bias"], **options)
    else:
        weight = weight.transpose(1, 0, 2, 3)
        y = g.add("ConvTranspose", x, weight, arrays["bias"], output_padding=[0, row.stride - 1], **options)
    return g.add("PRelu", y, arrays["slope"][:, None, None]) if "slope" in arrays else y


def residual(g: Graph, row: FoldedLayer, part: str, x: str) -> tuple[str, str]:
    """What a layer of the middle adds to its input [F, C], and its new state, where it has one."""
    arrays = getattr(row, part)
    if row.kind == "attention":
        return _attention(g, row, arrays, x), ""
    if row.kind == "linear":
        hidden = g.add("Relu", g.add("Gemm", x, arrays["up"].T, arrays["up_bias"]))
        return g.add("Gemm", hidden, arrays["down"].T, arrays["down_bias"]), ""
    return _recurrence(g, row, arrays, x, state_name(row, part))


def _attention(g: Graph, row: FoldedLayer, arrays: Arrays, x: str) -> str:
    _, heads, width, inputs = arrays["input"].shape
    y = g.add("Gemm", x, arrays["input"].reshape(-1, inputs).T, arrays["input_bias"].ravel())
    y = g.add("Transpose", g.add("Reshape", y, np.array([row.bands, 3 * heads, width])), perm=[1, 0, 2])
    query, key, value = g.listed("Split", y, count=3, axis=0)
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 1]))
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    mixed = g.add("Reshape", g.add("Transpose", mixed, perm=[1, 0, 2]), np.array([row.bands, heads * width]))
    return g.add("Gemm", mixed, arrays["out"].T, arrays["out_bias"])


def _recurrence(g: Graph, row: FoldedLayer, arrays: Arrays, x: str, state: str) -> tuple[str, str]:
    groups, _, width, inputs = arrays["input"].shape
    bias, own_bias = arrays["input_bias"].copy(), arrays["recurrent_bias"]
    bias[:, :2] += own_bias[:, :2]
    given = g.add("MatMul", x, arrays["input"].reshape(groups, -1, inputs).transpose(0, 2, 1))
    given = g.add("Add", given, bias.reshape(groups, 1, -1))  # [groups, bands, 3 width]
    own = g.add("MatMul", state, arrays["recurrent"].reshape(groups, -1, width).transpose(0, 2, 1))
    cut = np.array([2 * width, width])
    given_gates, given_new = g.listed("Split", given, cut, count=2, axis=-1)
    own_gates, own_new = g.listed("Split", own, cut, count=2, axis=-1)
    both = g.add("Sigmoid", g.add("Add", given_gates, own_gates))
    reset, update = g.listed("Split", both, count=2, axis=-1)
    own_new = g.add("Mul", reset, g.add("Add", own_new, own_bias[:, 2][:, None]))
    new = g.add("Tanh", g.add("Add", given_new, own_new))
    after = g.add("Add", new, g.add("Mul", update, g.add("Sub", state, new)))
    y = g.add("Reshape", g.add("Transpose", after, perm=[1, 0, 2]), np.array([row.bands, groups * width]))
    return g.add("Gemm", y, arrays["out"].T, arrays["out_bias"]), after


def decide(g: Graph, policy: Arrays | None, magnitude: str, small: str, middle: str, count: int) -> None:
    """The gates used: those given, or the policy's where they are below zero."""
    if policy is None:
        g.add("Identity", "gates", outputs=["gates_used"])
        return
    size = policy["recurrent_bias"].shape[1]
    # ONNX orders the gates of a GRU update, reset, new; PyTorch reset, update, new.
    order = lambda name: policy[name][[1, 0, 2]].reshape(1, 3 * size, -1)
    heard = g.add("Mul", magnitude, g.add("Reshape", g.add("ReduceL2", small, axes=[1]), np.array([1, 1, SEEN])))
    pooled = [g.add("MatMul", part, policy["pooling"]) for part in (magnitude, heard)]
    mean = g.add("Reshape", g.add("ReduceMean", middle, axes=[3]), np.array([1, 1, -1]))
    bias = np.concatenate([order("input_bias"), order("recurrent_bias")], axis=1)[..., 0]
    g.add(
        "GRU", g.add("Concat", *pooled, mean, axis=-1), order("input"), order("recurrent"), bias, "", "policy",
        outputs=[g.name("hidden"), "next_policy"], hidden_size=size, linear_before_reset=1,
    )  # fmt: skip
    hidden = g.add("Reshape", "next_policy", np.array([1, -1]))
    margins = g.add("Reshape", g.add("Gemm", hidden, policy["margins"].T, policy["margins_bias"]), np.array([count]))
    own = g.add("Cast", g.add("Greater", g.add("Add", margins, "shift"), np.float32(0)), to=1)
    g.add("Where", g.add("Less", "gates", np.float32(0)), own, "gates", outputs=["gates_used"])


def answer(g: Graph, mask: str, compressed: str) -> None:
    """Complex product of mask and compressed spectrum, then the inverse of the compression; the last bin is zero."""
    re, im = g.listed("Split", compressed, count=2, axis=1)
    mask_re, mask_im = g.listed("Split", mask, count=2, axis=1)
    swapped = g.add("Mul", g.add("Concat", im, re, axis=1), np.array([-1.0, 1.0]).reshape(1, 2, 1, 1))
    product = g.add("Add", g.add("Mul", compressed, mask_re), g.add("Mul", swapped, mask_im))
    power = g.add("ReduceSum", g.add("Mul", product, product), np.array([1]))
    enhanced = g.add("Mul", product, g.add("Pow", power, np.float32((1 / COMPRESSION - 1) / 2)))
    g.add("Pad", enhanced, np.array([0, 0, 0, 0, 0, 0, 0, 1]), outputs=["enhanced"])
