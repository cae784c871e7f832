"""Figures read off an ONNX graph: multiply-accumulates, and a hash of its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import onnx
from onnx import helper, numpy_helper

from rtsep.errors import GraphError

_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def count_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of one run of a graph with fixed shapes.

    Counted are MatMul, Gemm, Einsum, Conv, ConvTranspose, GRU, LSTM and RNN; everything element by element is
    not. Bodies of control flow are not looked into: a hop has no use for them.

    Raises
    ------
    GraphError
        A shape that is needed is not known.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = _shapes(inferred.graph)
    return sum(_node_macs(node, shapes) for node in inferred.graph.node)


def weights_sha256(model: onnx.ModelProto) -> str:
    """Return a hash over name, type, shape and bytes of all initialisers, in the order of their names."""
    digest = hashlib.sha256()
    for initialiser in sorted(model.graph.initializer, key=lambda item: item.name):
        array = numpy_helper.to_array(initialiser)
        digest.update(f"{initialiser.name}\0{array.dtype.str}\0{list(array.shape)}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    shapes = {item.name: list(item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def _node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    def shape(name: str) -> list[int]:
        if name not in shapes:
            raise GraphError(
                f"The multiply-accumulates of {node.op_type} {node.name!r} cannot be counted: the shape of {name!r} "
                "is not known. Export with fixed shapes."
            )
        return shapes[name]

    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "MatMul":
        return math.prod(shape(node.output[0])) * shape(node.input[0])[-1]
    if node.op_type == "Gemm":
        first = shape(node.input[0])
        return math.prod(shape(node.output[0])) * first[0 if attributes.get("transA", 0) else 1]
    if node.op_type == "Conv":
        # Weight [out, in / group, *kernel]: every output sample sums over one filter.
        return math.prod(shape(node.output[0])) * math.prod(shape(node.input[1])[1:])
    if node.op_type == "ConvTranspose":
        # Weight [in, out / group, *kernel]: every input sample is spread by one filter.
        return math.prod(shape(node.input[0])) * math.prod(shape(node.input[1])[1:])
    if node.op_type in _GATES:
        frames, batch, inputs = shape(node.input[0])
        if attributes.get("layout", 0):
            frames, batch = batch, frames
        directions, _, hidden = shape(node.input[2])
        return frames * batch * directions * _GATES[node.op_type] * hidden * (inputs + hidden)
    if node.op_type == "Einsum":
        return _einsum_macs(attributes["equation"].decode(), [shape(name) for name in node.input])
    return 0


def _einsum_macs(equation: str, operands: Sequence[list[int]]) -> int:
    """Every combination of all labels is one product; an ellipsis stands for the widest leading axes."""
    sizes: dict[str, int] = {}
    for labels, operand in zip(equation.split("->")[0].replace(" ", "").split(","), operands, strict=True):
        if "..." in labels:
            extra = len(operand) - (len(labels) - 3)
            labels = labels.replace("...", "".join(chr(0xE000 + index) for index in range(extra)))
        for label, size in zip(labels, operand, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) if len(operands) > 1 else 0
