"""An ONNX graph in the making: nodes, weights and branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


class Graph:
    """Nodes in the making; a branch shares the weights and the counter of names with the graph around it."""

    def __init__(self, parent: Graph | None = None):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = parent.weights if parent else {}
        self._known: dict[tuple, str] = parent._known if parent else {}
        self._numbers: list[int] = parent._numbers if parent else [0]

    def name(self, kind: str) -> str:
        """A name that is not yet taken."""
        self._numbers[0] += 1
        return f"{kind}_{self._numbers[0]}"

    def weight(self, array: np.ndarray) -> str:
        """A constant; equal ones are kept once."""
        array = np.asarray(array)
        array = np.asarray(array, np.int64 if array.dtype.kind == "i" else np.float32, order="C")
        key = (array.shape, array.dtype.kind, array.tobytes())
        if key not in self._known:
            self._known[key] = self.name("weight")
            self.weights[self._known[key]] = array
        return self._known[key]

    def add(self, kind: str, *inputs: str | np.ndarray, outputs: list[str] | None = None, **attributes) -> str:
        """Append a node; arrays among the inputs become weights. Returns the name of its first output."""
        from onnx import helper

        names = [item if isinstance(item, str) else self.weight(item) for item in inputs]
        results = outputs or [self.name(kind.lower())]
        self.nodes.append(helper.make_node(kind, names, results, name=self.name(kind), **attributes))
        return results[0]

    def listed(self, kind: str, *inputs: str | np.ndarray, count: int, **attributes) -> list[str]:
        """The same with several outputs."""
        outputs = [self.name(kind.lower()) for _ in range(count)]
        self.add(kind, *inputs, outputs=outputs, **attributes)
        return outputs

    def choose(self, condition: str, build: Callable[[Graph, bool], list[str]], count: int) -> list[str]:
        """The `count` outputs of `build(graph, is_open)` in the two branches of an `If`."""
        from onnx import TensorProto, helper

        branches = {}
        for name, is_open in (("then_branch", True), ("else_branch", False)):
            inner = Graph(self)
            results = build(inner, is_open)
            own = {output for node in inner.nodes for output in node.output}
            seen: set[str] = set()
            for i, result in enumerate(results):  # a branch gives what it made itself, and each thing once
                if result not in own or result in seen:
                    results[i] = inner.add("Identity", result)
                seen.add(results[i])
            infos = [helper.make_tensor_value_info(result, TensorProto.FLOAT, None) for result in results]
            branches[name] = helper.make_graph(inner.nodes, self.name(name), [], infos)
        return self.listed("If", condition, count=count, **branches)


def count_nodes(graph: onnx.GraphProto, *, is_open: bool = True) -> int:
    """Nodes that run on a frame with every gate open, or with every gate closed."""
    branch = "then_branch" if is_open else "else_branch"
    inner = (part.g for node in graph.node for part in node.attribute if part.name == branch)
    return len(graph.node) + sum(count_nodes(each, is_open=is_open) for each in inner)
