"""check_graph: what is let through, and the named error for everything else."""

from __future__ import annotations

import pytest

from rtsep.contract import TensorSpec, check_graph
from rtsep.errors import GraphError, StateMismatchError
from tests.contract.documents import FLOAT, full_info, full_tensors

Side = dict[str, TensorSpec]


@pytest.mark.parametrize("batch", [1, "B"])
def test_a_graph_that_fits_passes(batch: int | str) -> None:
    check_graph(full_info(), *full_tensors(batch))


def test_unknown_axes_of_outputs_are_left_to_the_first_hop() -> None:
    inputs, outputs = full_tensors()
    outputs["stems"] = ((None, 3, "C", None), FLOAT)
    outputs["state_out/stft.history"] = ((1, 2, "kept"), FLOAT)
    check_graph(full_info(), inputs, outputs)


def test_a_graph_without_state_passes() -> None:
    inputs = {"audio": ((1, 2, 256), FLOAT)}
    outputs = {"stems": ((1, 3, 2, 256), FLOAT)}
    check_graph(full_info(controls=[], notes=None), inputs, outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["audio", "control/query"])
def test_a_missing_input_is_named(name: str) -> None:
    inputs, outputs = full_tensors()
    del inputs[name]
    with pytest.raises(GraphError, match=f"no input '{name}'"):
        check_graph(full_info(), inputs, outputs)


@pytest.mark.parametrize("name", ["stems", "notes/onset", "notes/frame", "notes/velocity"])
def test_a_missing_output_is_named(name: str) -> None:
    inputs, outputs = full_tensors()
    del outputs[name]
    with pytest.raises(GraphError, match=f"no output '{name}'"):
        check_graph(full_info(), inputs, outputs)


def test_a_misnamed_input_is_shown() -> None:
    inputs, outputs = full_tensors()
    inputs["mixture"] = inputs.pop("audio")
    with pytest.raises(GraphError, match=r"no input 'audio'\. The graph has 'mixture' instead"):
        check_graph(full_info(), inputs, outputs)


@pytest.mark.parametrize(
    ("side", "name", "message"),
    [
        (0, "control/level", "which the metadata does not declare"),
        (0, "states_in/x", "does not know"),
        (0, "state_in/", "does not know"),
        (1, "note/onset", "does not know; .* Did you mean 'notes/onset'"),
        (1, "latent", "does not know"),
    ],
)
def test_an_unexpected_tensor_is_named(side: int, name: str, message: str) -> None:
    tensors = full_tensors()
    tensors[side][name] = ((1, 2), FLOAT)
    with pytest.raises(GraphError, match=message):
        check_graph(full_info(), *tensors)


def test_undeclared_notes_are_named() -> None:
    with pytest.raises(GraphError, match="'notes/onset', which the metadata does not declare"):
        check_graph(full_info(notes=None), *full_tensors())


@pytest.mark.parametrize(
    ("side", "name", "shape"),
    [
        (0, "audio", (1, 2, 512)),
        (0, "audio", (1, 1, 256)),
        (0, "audio", (1, 256)),
        (0, "audio", (1, 2, "T")),
        (0, "control/query", (1, 6)),
        (1, "stems", (1, 4, 2, 256)),
        (1, "stems", (1, 3, 2, 128)),
        (1, "stems", (2, 3, 2, 256)),
        (1, "stems", (3, 2, 256)),
        (1, "notes/frame", (1, 2, 2, 87)),
        (1, "notes/velocity", (1, 3, 2, 88)),
    ],
)
def test_a_wrong_shape_names_both(side: int, name: str, shape: tuple[int | str, ...]) -> None:
    tensors = full_tensors()
    tensors[side][name] = (shape, FLOAT)
    with pytest.raises(GraphError, match=f"'{name}' has the shape .*the metadata asks for"):
        check_graph(full_info(), *tensors)


@pytest.mark.parametrize(("side", "name"), [(0, "audio"), (0, "control/query"), (1, "stems"), (1, "notes/onset")])
def test_a_wrong_type_is_named(side: int, name: str) -> None:
    tensors = full_tensors()
    tensors[side][name] = (tensors[side][name][0], "tensor(double)")
    with pytest.raises(GraphError, match=rf"'{name}' is tensor\(double\); tensor\(float\) is needed"):
        check_graph(full_info(), *tensors)


def test_a_fixed_batch_other_than_one_is_refused() -> None:
    with pytest.raises(GraphError, match="fixed batch of 2"):
        check_graph(full_info(), *full_tensors(2))


@pytest.mark.parametrize("name", ["state_in/stft.history", "control/query"])
@pytest.mark.parametrize("batch", [1, "other"])
def test_batches_must_agree(name: str, batch: int | str) -> None:
    inputs, outputs = full_tensors("B")
    inputs[name] = ((batch, *inputs[name][0][1:]), FLOAT)
    outputs["state_out/stft.history"] = ((None, 2, 768), FLOAT)
    with pytest.raises(GraphError, match="they must agree"):
        check_graph(full_info(), inputs, outputs)


@pytest.mark.parametrize(("side", "own", "other"), [(0, "state_in", "state_out"), (1, "state_out", "state_in")])
def test_a_state_without_partner_is_named(side: int, own: str, other: str) -> None:
    tensors = full_tensors()
    tensors[side][f"{own}/clocks"] = ((1, 2), FLOAT)
    with pytest.raises(StateMismatchError, match=rf"'{own}/clocks' has no '{other}/clocks'\. Did you mean 'clock'"):
        check_graph(full_info(), *tensors)


@pytest.mark.parametrize(
    "spec",
    [((1, 2, 767), FLOAT), ((1, 2), FLOAT), ((1, 2, 768), "tensor(double)"), ((2, 2, 768), FLOAT)],
)
def test_a_state_that_changes_is_named(spec: TensorSpec) -> None:
    inputs, outputs = full_tensors()
    outputs["state_out/stft.history"] = spec
    with pytest.raises(StateMismatchError, match=r"'state_out/stft\.history' is .* they must be the same"):
        check_graph(full_info(), inputs, outputs)


@pytest.mark.parametrize("shape", [(1, 2, "n"), (1, 2, None), (1, 0)])
def test_a_state_has_a_size(shape: tuple[int | str | None, ...]) -> None:
    inputs, outputs = full_tensors()
    inputs["state_in/clock"] = outputs["state_out/clock"] = (shape, FLOAT)
    with pytest.raises(GraphError, match="every axis after the first must be a positive number"):
        check_graph(full_info(), inputs, outputs)


def test_a_state_without_batch_is_refused() -> None:
    inputs, outputs = full_tensors()
    inputs["state_in/clock"] = outputs["state_out/clock"] = ((), FLOAT)
    with pytest.raises(GraphError, match="has no axes"):
        check_graph(full_info(), inputs, outputs)


def test_a_state_of_strings_is_refused() -> None:
    inputs, outputs = full_tensors()
    inputs["state_in/clock"] = outputs["state_out/clock"] = ((1, 1), "tensor(string)")
    with pytest.raises(GraphError, match=r"is tensor\(string\); allowed are"):
        check_graph(full_info(), inputs, outputs)
