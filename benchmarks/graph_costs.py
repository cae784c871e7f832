"""What a hop of an ONNX graph costs on paper: multiplications, and bytes that must be read and written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from export.graph import count_macs

HEAVY = ("MatMul", "Gemm", "Conv", "ConvTranspose", "GRU", "LSTM")
"""Operators that multiply matrices; the rest goes over each value a few times."""


@dataclass(frozen=True)
class GraphCosts:
    """Cost of a hop.

    Attributes
    ----------
    macs : int
        Multiply-accumulates of `HEAVY` operators.
    weight_bytes, state_bytes, audio_bytes : int
        Weights are read once; states read and written; audio read, stems and notes written.
    products : list of onnx.ModelProto
        Each heavy node as a graph of its own, with its weights and its inputs' shapes.
    """

    macs: int
    weight_bytes: int
    state_bytes: int
    audio_bytes: int
    products: list[onnx.ModelProto] = field(repr=False, default_factory=list)

    @property
    def bytes(self) -> int:
        """All of them."""
        return self.weight_bytes + self.state_bytes + self.audio_bytes


def graph_costs(path: Path) -> GraphCosts:
    """Count; ValueError for a graph in which the shape of a product is not known beforehand."""
    model = shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    # A symbolic batch counts as one.
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {name: list(item.dims) for name, item in weights.items()}
    products = []
    for node in graph.node:
        if node.op_type in HEAVY:
            missing = [name for name in node.input if name and name not in shapes]
            if missing:
                raise ValueError(f"{path.name}: the shape of {missing[0]!r} is not known")
            products.append(_alone(node, weights, shapes, model.opset_import))
    sizes = {name: 4 * math.prod(shapes[name]) for name in (v.name for v in (*graph.input, *graph.output))}
    states = sum(size for name, size in sizes.items() if name.startswith("state_"))
    floats = [item for item in weights.values() if item.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    return GraphCosts(
        macs=count_macs(model),
        weight_bytes=sum(numpy_helper.to_array(item).nbytes for item in floats),
        state_bytes=states,
        audio_bytes=sum(sizes.values()) - states,
        products=products,
    )


def _alone(
    node: onnx.NodeProto,
    weights: dict[str, onnx.TensorProto],
    shapes: dict[str, list[int]],
    opsets: list[onnx.OperatorSetIdProto],
) -> onnx.ModelProto:
    names = [name for name in dict.fromkeys(node.input) if name]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in names if name not in weights
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output if name]
    graph = helper.make_graph([node], "product", inputs, outputs, [weights[n] for n in names if n in weights])
    return helper.make_model(graph, opset_imports=list(opsets), ir_version=10)
