"""Counting multiply-accumulates against counts by hand, and hashing weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph import count_macs, weights_sha256
from rtsep.errors import GraphError


def graph_of(
    op: str,
    inputs: Sequence[Sequence[int | str]],
    weights: Sequence[Sequence[int]] = (),
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node whose last inputs are weights."""
    names = [f"x{i}" for i in range(len(inputs))]
    weight_names = [f"w{i}" for i in range(len(weights))]
    node = helper.make_node(op, names + weight_names, [f"y{i}" for i in range(outputs)], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)],
        [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in zip(weight_names, weights, strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)  # a mistake in a test shows here
    return model


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        # [2, 3, 5] @ [5, 7]: 2 * 3 * 7 sums of 5 products.
        (graph_of("MatMul", [[2, 3, 5]], [[5, 7]]), 2 * 3 * 7 * 5),
        (graph_of("MatMul", [[4, 1, 3, 5], [6, 5, 7]]), 4 * 6 * 3 * 7 * 5),
        (graph_of("MatMul", [[5]], [[5]]), 5),
        (graph_of("Gemm", [[3, 5]], [[5, 7], [7]]), 3 * 7 * 5),
        (graph_of("Gemm", [[5, 3]], [[7, 5]], transA=1, transB=1), 3 * 7 * 5),
        # 8 outputs of 6 channels in 2 groups: each filter spans 4 / 2 channels and 3 taps.
        (graph_of("Conv", [[1, 4, 10]], [[6, 2, 3]], group=2), 8 * 6 * 2 * 3),
        (graph_of("Conv", [[2, 4, 10]], [[6, 4, 3]], strides=[2], pads=[1, 1]), 2 * 5 * 6 * 4 * 3),
        # 10 inputs of 4 channels, each spread over 6 / 2 channels and 3 taps.
        (graph_of("ConvTranspose", [[1, 4, 10]], [[4, 3, 3]], group=2, strides=[2]), 10 * 4 * 3 * 3),
        (graph_of("GRU", [[5, 2, 7]], [[1, 24, 7], [1, 24, 8]], hidden_size=8), 5 * 2 * 24 * (7 + 8)),
        (graph_of("LSTM", [[5, 2, 7]], [[1, 32, 7], [1, 32, 8]], hidden_size=8), 5 * 2 * 32 * (7 + 8)),
        (graph_of("RNN", [[5, 2, 7]], [[1, 8, 7], [1, 8, 8]], hidden_size=8), 5 * 2 * 8 * (7 + 8)),
        (
            graph_of("GRU", [[5, 2, 7]], [[2, 24, 7], [2, 24, 8]], hidden_size=8, direction="bidirectional"),
            2 * 5 * 2 * 24 * (7 + 8),
        ),
        (graph_of("Einsum", [[2, 3, 5]], [[5, 7]], equation="bij,jk->bik"), 2 * 3 * 5 * 7),
        (graph_of("Einsum", [[2, 3, 5]], [[5, 7]], equation="... j, jk -> ... k"), 2 * 3 * 5 * 7),
        (graph_of("Einsum", [[2, 3, 5]], equation="bij->bji"), 0),
        (graph_of("Add", [[2, 3]], [[2, 3]]), 0),
    ],
)
def test_multiply_accumulates(model: onnx.ModelProto, macs: int) -> None:
    assert count_macs(model) == macs


def test_an_unknown_shape_is_an_error() -> None:
    with pytest.raises(GraphError, match="cannot be counted: the shape of"):
        count_macs(graph_of("MatMul", [["B", 3, 5]], [[5, 7]]))


def test_the_hash_is_of_the_weights_alone() -> None:
    one, two = (graph_of("MatMul", [[2, 3, 5], [5, 5]], []) for _ in range(2))
    weights = {"b": np.arange(6, dtype=np.float32), "a": np.ones((2, 3), np.float32)}
    for name in weights:
        one.graph.initializer.append(numpy_helper.from_array(weights[name], name))
    for name in reversed(weights):
        # Raw bytes and typed fields are two ways to store the same weights.
        two.graph.initializer.append(
            helper.make_tensor(name, TensorProto.FLOAT, weights[name].shape, weights[name].flatten().tolist())
        )
    helper.set_model_props(two, {"other": "metadata"})
    assert weights_sha256(one) == weights_sha256(two)
    assert len(weights_sha256(one)) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda name, array: (name, array + np.float32(1e-7)),
        lambda name, array: (name, array.reshape(3, 2)),
        lambda name, array: (name, array.astype(np.float64)),
        lambda name, array: ("c", array),
    ],
)
def test_the_hash_changes_with_the_weights(change: Any) -> None:
    array = np.ones((2, 3), np.float32)
    one, two = (graph_of("Add", [[2, 3], [2, 3]]) for _ in range(2))
    one.graph.initializer.append(numpy_helper.from_array(array, "a"))
    name, changed = change("a", array)
    two.graph.initializer.append(numpy_helper.from_array(changed, name))
    assert weights_sha256(one) != weights_sha256(two)
