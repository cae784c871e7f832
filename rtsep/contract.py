"""The streaming ONNX contract, version 1: names, metadata and what a graph must look like.

Standard library only, so that the command line can describe a model without loading anything heavy.
The tables a model author needs are in ``docs/contract.md``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rtsep.errors import ContractVersionError, GraphError, StateMismatchError, suggest
from rtsep.strict_json import (
    each,
    load_object,
    metadata_error,
    or_null,
    read_fields,
    read_integer,
    read_object,
)

CONTRACT_VERSION = 1
METADATA_KEY = "rtsep"
"""Key in ``metadata_props`` that holds the one JSON document."""

AUDIO = "audio"
STEMS = "stems"
STATE_IN = "state_in/"
STATE_OUT = "state_out/"
CONTROL = "control/"
NOTES = ("notes/onset", "notes/frame", "notes/velocity")

ELEMENT_TYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
"""ONNX type strings a state may have, and the NumPy dtype of each. All other tensors are float32."""

TensorSpec = tuple[tuple[int | str | None, ...], str]
"""Shape (an int, a symbol, or None where unknown) and ONNX type string, as ONNX Runtime reports them."""

_WHAT = f"The {METADATA_KEY!r} metadata"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ControlSpec:
    """One tensor a person sets while the model plays.

    Parameters
    ----------
    name : str
        The graph input is ``control/<name>``.
    shape : tuple of int
        Without the batch axis; ``()`` is one number per batch element.
    default : tuple of float
        Flattened in C order, one value per element of `shape`, each within the range.
    minimum, maximum : float
        Allowed range of every element, both ends included.
    meaning : str
        One line for a person: what it does and in which unit.
    labels : tuple of str
        Names of the elements, flattened in C order; empty when they have none.

    Raises
    ------
    MetadataError
        When a value is outside what is said above.
    """

    name: str
    shape: tuple[int, ...]
    default: tuple[float, ...]
    minimum: float
    maximum: float
    meaning: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        key = f"controls[{self.name!r}]"
        _require_name(f"{key}.name", self.name)
        for size in self.shape:
            _require_at_least(f"{key}.shape", size, 1)
        if not self.minimum <= self.maximum:
            raise metadata_error(f"{key}: minimum {self.minimum} is above maximum {self.maximum}.")
        if len(self.default) != math.prod(self.shape):
            raise metadata_error(
                f"{key}.default has {len(self.default)} values; shape {list(self.shape)} needs {math.prod(self.shape)}."
            )
        for value in self.default:
            if not self.minimum <= value <= self.maximum:
                raise metadata_error(f"{key}.default holds {value}; allowed is {self.minimum} to {self.maximum}.")
        if self.labels:
            _require_names(f"{key}.labels", self.labels)
            if len(self.labels) != len(self.default):
                raise metadata_error(
                    f"{key}.labels has {len(self.labels)} names; shape {list(self.shape)} needs {len(self.default)}, "
                    "or none."
                )


@dataclass(frozen=True)
class NotesSpec:
    """What the note posteriors of a model mean.

    Parameters
    ----------
    stems : tuple of str
        The stems notes are given for, axis ``S'`` of the outputs; each is a stem of the model.
    lowest_midi, highest_midi : int
        First and last pitch of axis ``P``, MIDI note numbers 0 to 127, both included.
    frames_per_hop : int
        Size of axis ``N``.
    extra_latency_samples : int
        Latency of the notes beyond that of the stems, in samples at the rate the model runs at.

    Raises
    ------
    MetadataError
        When a value is outside what is said above.
    """

    stems: tuple[str, ...]
    lowest_midi: int
    highest_midi: int
    frames_per_hop: int
    extra_latency_samples: int

    def __post_init__(self) -> None:
        _require_names("notes.stems", self.stems)
        if not 0 <= self.lowest_midi <= self.highest_midi <= 127:
            raise metadata_error(
                f"notes.lowest_midi {self.lowest_midi} to notes.highest_midi {self.highest_midi} "
                "is no range within 0 to 127."
            )
        _require_at_least("notes.frames_per_hop", self.frames_per_hop, 1)
        _require_at_least("notes.extra_latency_samples", self.extra_latency_samples, 0)

    @property
    def pitches(self) -> int:
        """Size of axis ``P``."""
        return self.highest_midi - self.lowest_midi + 1


@dataclass(frozen=True)
class ModelInfo:
    """Everything a host needs to know of a model beside its graph.

    Parameters
    ----------
    contract_version : int
        `CONTRACT_VERSION`.
    name, version : str
        Of the model.
    samplerates : tuple of int
        Rates in Hz the model runs at natively, without a resampler.
    hop_samples : int
        Samples consumed and produced per step.
    latency_samples : int
        The stems of a step belong to the audio this many samples earlier.
    channels : int
        Channels of ``audio`` and of every stem.
    stems : tuple of str
        Names along axis ``S``; stems always sum to the delayed audio.
    residual_stem : str or None
        The stem that takes what the masks leave over; None when all share it.
    controls : tuple of ControlSpec
        One for each ``control/<name>`` input.
    notes : NotesSpec or None
        None when the graph has no note outputs.
    parameters : int
        Trained numbers in the model.
    macs_per_second : int
        Multiply-accumulates per second of audio at the highest native rate.
    licence : str
        Of the weights.
    training_data : tuple of str
        Names of the collections the weights were trained on; empty for an untrained model.
    git_commit : str
        Commit of the code that exported it.
    weights_sha256 : str
        Lower-case hexadecimal hash of the initialisers.
    evaluation : dict
        Figures by name; free in form, JSON values only.

    Raises
    ------
    MetadataError
        When a value is outside what is said above.
    ContractVersionError
        When `contract_version` is not `CONTRACT_VERSION`.
    """

    contract_version: int
    name: str
    version: str
    samplerates: tuple[int, ...]
    hop_samples: int
    latency_samples: int
    channels: int
    stems: tuple[str, ...]
    residual_stem: str | None
    controls: tuple[ControlSpec, ...]
    notes: NotesSpec | None
    parameters: int
    macs_per_second: int
    licence: str
    training_data: tuple[str, ...]
    git_commit: str
    weights_sha256: str
    evaluation: dict[str, Any]

    def __post_init__(self) -> None:
        _require_version(self.contract_version)
        _require_name("name", self.name)
        for key in ("version", "licence", "git_commit"):
            if not getattr(self, key):
                raise metadata_error(f"{key} is empty.")
        if not self.samplerates or len(set(self.samplerates)) != len(self.samplerates):
            raise metadata_error(f"samplerates is {list(self.samplerates)}; one or more different rates are needed.")
        for samplerate in self.samplerates:
            _require_at_least("samplerates", samplerate, 1)
        _require_at_least("hop_samples", self.hop_samples, 1)
        _require_at_least("latency_samples", self.latency_samples, 0)
        _require_at_least("channels", self.channels, 1)
        _require_at_least("parameters", self.parameters, 0)
        _require_at_least("macs_per_second", self.macs_per_second, 0)
        _require_names("stems", self.stems)
        if self.residual_stem is not None and self.residual_stem not in self.stems:
            raise metadata_error(
                f"residual_stem {self.residual_stem!r} is none of the stems {', '.join(self.stems)}."
                f"{suggest(self.residual_stem, self.stems)}"
            )
        names = [control.name for control in self.controls]
        if len(set(names)) != len(names):
            raise metadata_error(f"controls names {names} are not all different.")
        if self.notes is not None:
            for stem in self.notes.stems:
                if stem not in self.stems:
                    raise metadata_error(
                        f"notes.stems holds {stem!r}, none of the stems {', '.join(self.stems)}."
                        f"{suggest(stem, self.stems)}"
                    )
        if not _SHA256.fullmatch(self.weights_sha256):
            raise metadata_error(
                f"weights_sha256 is {self.weights_sha256!r}; 64 lower-case hexadecimal digits are needed."
            )

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Read the metadata document.

        Parameters
        ----------
        text : str
            The value under `METADATA_KEY`.

        Raises
        ------
        ContractVersionError
            Another contract version; looked at before anything else, since the other keys depend on it.
        MetadataError
            Not JSON, a key unknown, missing or repeated, or a value of a wrong type or out of range.
        """
        document = load_object(text, _WHAT)
        if "contract_version" in document:
            _require_version(read_integer("contract_version", document["contract_version"]))
        special = {"tuple[ControlSpec, ...]": each(_control), "NotesSpec | None": or_null(_notes)}
        return read_fields(cls, document, _WHAT, special=special)

    def to_json(self) -> str:
        """Return the metadata document; `from_json` gives back an equal object.

        Raises
        ------
        MetadataError
            When `evaluation` holds something JSON cannot carry (NaN and infinity included).
        """
        try:
            return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise metadata_error(f"evaluation cannot be written as JSON: {error}.") from error


def check_graph(info: ModelInfo, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    """Check the tensors of a graph against its metadata and against each other.

    Parameters
    ----------
    info : ModelInfo
        The metadata of the same file.
    inputs, outputs : mapping of str to TensorSpec
        As the file declares them. The first axis is the batch: 1, or one symbol shared by all inputs.
        The other axes of inputs are numbers; those of an output may be unknown and are then checked by
        the first hop of the session.

    Raises
    ------
    GraphError
        A tensor is missing, unexpected, or of a wrong shape or type.
    StateMismatchError
        A ``state_in`` without its ``state_out`` of the same shape and type, or the reverse.
    """
    expected_inputs: dict[str, tuple[int, ...]] = {AUDIO: (info.channels, info.hop_samples)}
    expected_inputs.update({CONTROL + control.name: control.shape for control in info.controls})
    expected_outputs: dict[str, tuple[int, ...]] = {STEMS: (len(info.stems), info.channels, info.hop_samples)}
    if info.notes is not None:
        shape = (len(info.notes.stems), info.notes.frames_per_hop, info.notes.pitches)
        expected_outputs.update(dict.fromkeys(NOTES, shape))

    _check_names("input", inputs, expected_inputs, STATE_IN)
    _check_names("output", outputs, expected_outputs, STATE_OUT)
    batch = _batch(AUDIO, inputs[AUDIO])
    for name, wanted in expected_inputs.items():
        _check_float32(name, inputs[name])
        _check_shape(name, inputs[name], wanted, batch, unknown_allowed=False)
    for name, wanted in expected_outputs.items():
        _check_float32(name, outputs[name])
        _check_shape(name, outputs[name], wanted, batch, unknown_allowed=True)
    _check_states(inputs, outputs, batch)


# --- graph --------------------------------------------------------------------------------------------------


def _check_names(
    side: str, tensors: Mapping[str, TensorSpec], expected: Mapping[str, tuple[int, ...]], state_prefix: str
) -> None:
    allowed = [*expected, f"{state_prefix}<path>"]
    if state_prefix == STATE_IN:
        allowed.append(f"{CONTROL}<name>")
    for name in expected:
        if name not in tensors:
            others = [o for o in tensors if o not in expected and not o.startswith(state_prefix)]
            hint = f" The graph has {', '.join(map(repr, others))} instead." if others else ""
            raise _graph_error(f"The graph has no {side} {name!r}.{hint}")
    for name in tensors:
        if name in expected or (name.startswith(state_prefix) and len(name) > len(state_prefix)):
            continue
        if name.startswith(CONTROL) or name in NOTES:
            why = "which the metadata does not declare"
        else:
            why = f"which contract version {CONTRACT_VERSION} does not know"
        raise _graph_error(
            f"The graph has an {side} {name!r}, {why}; allowed are {', '.join(allowed)}.{suggest(name, allowed)}"
        )


def _batch(name: str, spec: TensorSpec) -> int | str | None:
    shape = spec[0]
    if not shape:
        raise _graph_error(f"{name!r} has no axes; the first one must be the batch.")
    batch = shape[0]
    if isinstance(batch, int) and batch != 1:
        raise _graph_error(f"{name!r} has a fixed batch of {batch}; allowed are 1 or a symbol.")
    return batch


def _same_batch(name: str, spec: TensorSpec, batch: int | str | None) -> None:
    own = _batch(name, spec)
    both_named = isinstance(own, str) and isinstance(batch, str)
    if isinstance(own, int) != isinstance(batch, int) or (both_named and own != batch):
        raise _graph_error(f"{name!r} has the batch {own!r} and {AUDIO!r} has {batch!r}; they must agree.")


def _check_float32(name: str, spec: TensorSpec) -> None:
    if spec[1] != "tensor(float)":
        raise _graph_error(f"{name!r} is {spec[1]}; tensor(float) is needed.")


def _check_shape(
    name: str, spec: TensorSpec, wanted: tuple[int, ...], batch: int | str | None, *, unknown_allowed: bool
) -> None:
    shape = spec[0]
    if unknown_allowed:
        fits = len(shape) == len(wanted) + 1 and all(
            size == want or not isinstance(size, int) for size, want in zip(shape[1:], wanted, strict=True)
        )
        fits = fits and (not isinstance(shape[0], int) or shape[0] == batch)
    else:
        fits = len(shape) == len(wanted) + 1 and shape[1:] == wanted
        if fits:
            _same_batch(name, spec, batch)
    if not fits:
        raise _graph_error(f"{name!r} has the shape {_shape(shape)}; the metadata asks for {_shape((batch, *wanted))}.")


def _check_states(inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], batch: int | str | None) -> None:
    incoming = _by_path(inputs, STATE_IN)
    outgoing = _by_path(outputs, STATE_OUT)
    for path in incoming:
        if path not in outgoing:
            raise _state_error(f"{STATE_IN + path!r} has no {STATE_OUT + path!r}.{suggest(path, outgoing)}")
    for path in outgoing:
        if path not in incoming:
            raise _state_error(f"{STATE_OUT + path!r} has no {STATE_IN + path!r}.{suggest(path, incoming)}")
    for path, (shape, element_type) in incoming.items():
        if element_type not in ELEMENT_TYPES:
            raise _graph_error(f"{STATE_IN + path!r} is {element_type}; allowed are {', '.join(ELEMENT_TYPES)}.")
        _same_batch(STATE_IN + path, (shape, element_type), batch)
        if not all(isinstance(size, int) and size > 0 for size in shape[1:]):
            raise _graph_error(
                f"{STATE_IN + path!r} has the shape {_shape(shape)}; "
                f"every axis after the first must be a positive number."
            )
        out_shape, out_type = outgoing[path]
        same = len(shape) == len(out_shape) and all(
            size == out or not isinstance(out, int) for size, out in zip(shape, out_shape, strict=True)
        )
        if not same or element_type != out_type:
            raise _state_error(
                f"{STATE_OUT + path!r} is {out_type} {_shape(out_shape)} and {STATE_IN + path!r} is "
                f"{element_type} {_shape(shape)}; they must be the same."
            )


def _by_path(tensors: Mapping[str, TensorSpec], prefix: str) -> dict[str, TensorSpec]:
    return {name.removeprefix(prefix): spec for name, spec in tensors.items() if name.startswith(prefix)}


def _shape(shape: Iterable[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _graph_error(message: str) -> GraphError:
    return GraphError(f"{message} See docs/contract.md.")


def _state_error(message: str) -> StateMismatchError:
    return StateMismatchError(f"{message} See docs/contract.md.")


# --- metadata -----------------------------------------------------------------------------------------------


def _require_version(version: int) -> None:
    if version != CONTRACT_VERSION:
        raise ContractVersionError(
            f"The model follows contract version {version}; this rtsep reads version {CONTRACT_VERSION}. "
            "Export it again with: python -m export, or install the rtsep it was made for."
        )


def _require_at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise metadata_error(f"{key} is {value}; {least} or more is needed.")


def _require_name(key: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise metadata_error(
            f"{key} is {value!r}; a letter or digit, then letters, digits, spaces and . _ + - are allowed."
        )


def _require_names(key: str, values: tuple[str, ...]) -> None:
    for value in values:
        _require_name(key, value)
    if not values or len(set(values)) != len(values):
        raise metadata_error(f"{key} is {list(values)}; one or more different names are needed.")


def _control(key: str, value: Any) -> ControlSpec:
    return read_fields(ControlSpec, read_object(key, value), _WHAT, prefix=f"{key}.", special={})


def _notes(key: str, value: Any) -> NotesSpec:
    return read_fields(NotesSpec, read_object(key, value), _WHAT, prefix=f"{key}.", special={})
