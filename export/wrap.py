"""A streaming PyTorch module as one flat ONNX graph with the contract's names."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import onnx
import onnx_ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from models.streaming.dft import RealDFT
from rtsep.contract import AUDIO, CONTROL, NOTES, STATE_IN, STATE_OUT, STEMS, ControlSpec, NotesSpec
from rtsep.errors import GraphError

OPSET = 20
_NO_LIMIT = 2**40


class StreamingModel(Protocol):
    """What a module has to offer to be exported.

    Attributes
    ----------
    hop_samples, latency, channels : int
        As in the contract; `latency` in samples.
    stems : tuple of str
    samplerates : tuple of int
        Native rates, Hz.
    residual_stem : str or None

    Notes
    -----
    A module with controls also has ``controls``, a sequence of mappings with the fields of
    `rtsep.contract.ControlSpec`, and takes a third argument: tensors ``[B, ...]`` by control name.
    A module that writes notes down has ``notes``, a mapping with the fields of `rtsep.contract.NotesSpec`, and
    returns ``(stems, notes, state)`` with ``onset``, ``frame`` and ``velocity``, each ``[B, S', N, P]``, in `notes`.
    """

    hop_samples: int
    latency: int
    channels: int
    stems: tuple[str, ...]
    samplerates: tuple[int, ...]
    residual_stem: str | None

    def initial_state(self, batch: int = 1) -> dict[str, Tensor]:
        """Return zeros ``[B, ...]`` by module path."""
        ...

    def __call__(self, audio: Tensor, state: Mapping[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Separate ``[B, C, T]``, T a multiple of the hop, into ``[B, S, C, T]`` and the new state."""
        ...


class FlatStep(nn.Module):
    """``(audio, *states, *controls) -> (stems, *notes, *states)`` around a streaming module.

    Parameters
    ----------
    model : nn.Module
        Offers `StreamingModel`.
    paths : sequence of str
        Order of the states.
    controls : sequence of str
        Order of the controls.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], controls: Sequence[str]) -> None:
        super().__init__()
        self.model, self.paths, self.controls = model, tuple(paths), tuple(controls)

    def forward(self, audio: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Run one hop."""
        state = dict(zip(self.paths, rest[: len(self.paths)], strict=True))
        controls = dict(zip(self.controls, rest[len(self.paths) :], strict=True))
        stems, notes, after = call(self.model, audio, state, controls)
        return (stems, *notes.values(), *(after[path] for path in self.paths))


def call(
    model: Any, audio: Tensor, state: Mapping[str, Tensor] | None, controls: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Run a streaming module of any kind; return stems, notes by their names in the contract, and state."""
    given = None if state is None else dict(state)
    returned = model(audio, given, dict(controls)) if controls else model(audio, given)
    if notes_spec(model) is None:
        stems, after = returned
        return stems, {}, after
    stems, notes, after = returned
    return stems, {name: notes[name.partition("/")[2]] for name in NOTES}, after


def notes_spec(model: Any) -> NotesSpec | None:
    """Return what the notes of a module mean; None when it writes none down."""
    fields = getattr(model, "notes", None)
    return None if fields is None else NotesSpec(**{**fields, "stems": tuple(fields["stems"])})


def control_specs(model: StreamingModel) -> tuple[ControlSpec, ...]:
    """Return the controls of a module; none when it has no ``controls``.

    Raises
    ------
    MetadataError
        A control has values the contract does not allow.
    """
    return tuple(
        ControlSpec(**{key: tuple(v) if isinstance(v, list) else v for key, v in control.items()})
        for control in getattr(model, "controls", ())
    )


def default_controls(model: StreamingModel) -> dict[str, Tensor]:
    """Return the controls' defaults as tensors ``[1, ...]`` by name."""
    return {
        control.name: torch.tensor(control.default, dtype=torch.float32).reshape(1, *control.shape)
        for control in control_specs(model)
    }


def to_onnx(model: StreamingModel, batch: int = 1) -> onnx.ModelProto:
    """Export one hop of a streaming module; the module itself is left as it is.

    The batch is fixed: the host runs 1, and static shapes let ONNX Runtime plan its memory once.

    Parameters
    ----------
    model : StreamingModel
        An `nn.Module`; exported in evaluation mode.
    batch : int
        Streams at once; other than 1 for measuring only.

    Returns
    -------
    onnx.ModelProto
        Without metadata, and without the source paths of this machine that PyTorch notes in every node.

    Raises
    ------
    GraphError
        The module does not return the state it takes, or PyTorch cannot export it.
    """
    assert isinstance(model, nn.Module)
    module = copy.deepcopy(model).eval()
    for child in module.modules():
        # ONNX's DFT op is slower than two matrix products and does not run on CUDA.
        if isinstance(child, RealDFT):
            child.implementation = "factored"
    state = model.initial_state(batch)
    controls = {name: value.expand(batch, *value.shape[1:]) for name, value in default_controls(model).items()}
    audio = torch.zeros(batch, model.channels, model.hop_samples)
    step = FlatStep(module, list(state), list(controls)).eval()
    arguments = (audio, *state.values(), *controls.values())
    _check_returned_state(module, audio, state, controls)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                step,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                input_names=[AUDIO, *(STATE_IN + p for p in state), *(CONTROL + n for n in controls)],
                output_names=[
                    STEMS,
                    *(NOTES if notes_spec(model) else ()),
                    *(STATE_OUT + path for path in state),
                ],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise GraphError(
            f"{type(model).__name__} cannot be exported to ONNX opset {OPSET}: {_reason(error)}. "
            "See docs/writing-a-model.md."
        ) from error
    assert program is not None
    _simplify(program.model)
    proto = program.model_proto
    _strip_provenance(proto)
    return proto


def _reason(error: Exception) -> str:
    """Return what PyTorch says of the cause, without its advice to its own developers."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    _, _, summary = text.partition("## Exception summary")
    return " ".join((summary or text).split())[:400]


def _check_returned_state(
    module: nn.Module, audio: Tensor, state: Mapping[str, Tensor], controls: Mapping[str, Tensor]
) -> None:
    with torch.no_grad():
        _, _, after = call(module, audio, state, controls)
    before_shapes = {path: tuple(tensor.shape) for path, tensor in state.items()}
    after_shapes = {path: tuple(tensor.shape) for path, tensor in after.items()}
    if before_shapes != after_shapes:
        raise GraphError(
            f"{type(module).__name__} takes the state {before_shapes} and returns {after_shapes}; they must be "
            "the same. See docs/writing-a-model.md."
        )


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants and merge what is equal, without onnxscript's rewrite rules.

    Those match constants to within 1e-8 (onnxscript 0.7), so that ``log(power + 1e-8)`` loses its floor as an
    addition of nothing, and silence becomes NaN. ONNX Runtime, which fuses nodes when it loads, compares exactly.
    """
    onnxscript.optimizer.inline(model)
    for _ in range(2):
        # No limit on sizes: recurrent weights are stored in ONNX's gate order rather than sorted on loading.
        onnxscript.optimizer.fold_constants(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
        onnxscript.optimizer.remove_unused_nodes(model)
        # Gives the outputs of recurrent nodes a shape, which the second round folds into constants.
        passes.ShapeInferencePass()(model)
    for tidy in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)


def _strip_provenance(proto: onnx.ModelProto) -> None:
    """Take out stack traces and paths of the exporting machine; they are most of a small file."""
    graph = proto.graph
    del proto.metadata_props[:]
    del graph.metadata_props[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's talk about its own internals off the terminal."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
