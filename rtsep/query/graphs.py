"""The two graphs beside a model that separates by query: ``NAME.query.onnx`` and ``NAME.synth.onnx``.

The encoder turns a recording into a query and its timbre; the synth step turns the notes of a hop and a timbre
into one frame of magnitudes. What they must look like is in ``docs/queries.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import ELEMENT_TYPES, STATE_IN, STATE_OUT
from rtsep.errors import GraphError, ModelError, ModelFileError, ModelNotFoundError, QueryError
from rtsep.inference.onnx_file import read_properties
from rtsep.inference.provider import open_session
from rtsep.query.queries import FloatArray, Query
from rtsep.strict_json import each, load_object, metadata_error, read_fields, read_integer
from rtsep.zoo.registry import list_models, resolve

State = dict[str, NDArray[Any]]

FORMAT = 1
LOWEST_MIDI, PITCHES = 21, 88
"""Pitches of the synth's ``notes`` input: the keys of a piano."""

_NAMES = {"query": "query encoder", "synth": "synthesiser"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class EncoderInfo:
    """Metadata of a query encoder, key ``rtsep-query``.

    Parameters
    ----------
    format : int
    model : str
        Name of the model it belongs to.
    samplerate : int
        Of the recording it takes, in hertz.
    size : int
        Numbers in a query.
    timbre : tuple of (C, F)
        Shapes of the timbre's levels.
    """

    format: int
    model: str
    samplerate: int
    size: int
    timbre: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SynthInfo:
    """Metadata of a synth step, key ``rtsep-synth``: names, and rate, hop and window in hertz and samples."""

    format: int
    model: str
    samplerate: int
    hop: int
    window: int


def encoder_path(model: Path) -> Path:
    """Where the query encoder of a model file stands."""
    return model.with_suffix(".query.onnx")


def synth_path(model: Path) -> Path:
    """Where the synth step of a model file stands."""
    return model.with_suffix(".synth.onnx")


def hash_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def models_with(kind: str) -> str:
    """Say which shipped models have a ``"query"`` encoder or a ``"synth"``."""
    names = [entry.name for entry in list_models() if kind in entry.companions]
    if names:
        return f"Models with a {_NAMES[kind]}: {', '.join(names)}."
    return f"No model with a {_NAMES[kind]} is shipped here; give a file: --model NAME.onnx."


def query_model(model: str | None) -> Path:
    """Return the file of `model`, or of the first shipped model that has a query encoder when it is None.

    Raises
    ------
    ModelNotFoundError
        There is no such model, or none has a query encoder.
    """
    if model is not None:
        return resolve(model)
    entries = [entry for entry in list_models() if "query" in entry.companions]
    if not entries:
        raise ModelNotFoundError(models_with("query"))
    # The one that goes by the plain name, where there are several sizes.
    return next((entry for entry in entries if "msi" in (entry.name, *entry.aliases)), entries[0]).path


class QueryEncoder:
    """The graph that turns a recording into a query.

    Parameters
    ----------
    model : pathlib.Path
        File of the model the encoder stands beside.

    Attributes
    ----------
    info : EncoderInfo
    sha256 : str
        Of the encoder's file.

    Raises
    ------
    ModelNotFoundError
        The model has no query encoder.
    ModelError
        The file is damaged, or is no query encoder.
    """

    def __init__(self, model: Path) -> None:
        path = _companion(model, encoder_path(model), "query")
        shapes = each(each(read_integer))
        special = {"tuple[tuple[int, ...], ...]": shapes}
        self.info = _read_metadata(EncoderInfo, path, "rtsep-query", special)
        self.sha256 = hash_of(path)
        self._path, self._session = path, open_session(path, "cpu", 1).session
        expected: dict[str, tuple[int, ...]] = {"query": (1, self.info.size)}
        expected.update({f"timbre/{level}": (1, *shape) for level, shape in enumerate(self.info.timbre)})
        self._expected = expected
        _check_names(path, "inputs", self._session.get_inputs(), {"audio"})
        _check_names(path, "outputs", self._session.get_outputs(), set(expected))

    def encode(self, audio: FloatArray) -> tuple[FloatArray, tuple[FloatArray, ...]]:
        """Return the query ``[D]`` and the timbre, ``[C, F]`` for each level.

        Parameters
        ----------
        audio : array [T]
            float32, mono, at ``info.samplerate``, one second or more.

        Raises
        ------
        ModelError
            The graph fails, or gives something else than its metadata say.
        """
        found = _run(self._path, self._session, list(self._expected), {"audio": audio[None]})
        for name, shape in self._expected.items():
            if found[name].shape != shape or not np.isfinite(found[name]).all():
                raise GraphError(
                    f"{self._path}: {name!r} came out as {list(found[name].shape)}, finite: "
                    f"{bool(np.isfinite(found[name]).all())}; {list(shape)} finite numbers are needed."
                )
        query, *timbre = (found[name][0] for name in self._expected)
        return query, tuple(timbre)


class SynthGraph:
    """The graph that turns the notes of a hop and a timbre into magnitudes.

    Parameters
    ----------
    model : pathlib.Path
        File of the model the graph stands beside.
    query : Query
        Whose timbre sounds.

    Attributes
    ----------
    info : SynthInfo

    Raises
    ------
    ModelNotFoundError
        The model has no synthesiser.
    QueryError
        The query is of another model, or has no timbre that fits.
    ModelError
        The file is damaged, or is no synth step.
    """

    def __init__(self, model: Path, query: Query) -> None:
        path = _companion(model, synth_path(model), "synth")
        self.info = _read_metadata(SynthInfo, path, "rtsep-synth", {})
        if self.info.window < 2 * self.info.hop or self.info.hop < 1 or self.info.window % 2:
            raise GraphError(f"{path}: window {self.info.window} and hop {self.info.hop} do not fit each other.")
        if query.model != self.info.model:
            raise QueryError(
                f"The query {query.name!r} is for the model {query.model}; {path} synthesises for {self.info.model}."
            )
        self._path, self._session = path, open_session(path, "cpu", 1).session
        inputs = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        types = {node.name: ELEMENT_TYPES.get(node.type, "float32") for node in self._session.get_inputs()}
        self._states = {name: (shape, types[name]) for name, shape in inputs.items() if name.startswith(STATE_IN)}
        # By the graph's inputs, so that one with fewer levels than the encoder gives still runs.
        levels = [name for name in inputs if name.startswith("timbre/")]
        given = {f"timbre/{level}": values for level, values in enumerate(query.timbre)}
        for name in levels:
            have = tuple(given[name].shape) if name in given else None
            if have != inputs[name][1:]:
                raise QueryError(
                    f"The query {query.name!r} has {name} of shape {have}, {path} takes {inputs[name][1:]}. "
                    f"{query.enroll_again(model)}"
                )
        self._timbre = {name: np.ascontiguousarray(given[name][None]) for name in levels}
        _check_names(path, "inputs", self._session.get_inputs(), {"notes", *levels, *self._states})
        outgoing = {name.replace(STATE_IN, STATE_OUT, 1) for name in self._states}
        _check_names(path, "outputs", self._session.get_outputs(), {"magnitude", *outgoing})
        if inputs["notes"] != (1, PITCHES):
            raise GraphError(f"{path}: 'notes' has the shape {list(inputs['notes'])}; [1, {PITCHES}] is needed.")
        self.bins = self.info.window // 2 + 1
        self._outputs = ["magnitude", *sorted(outgoing)]
        self._notes = np.zeros((1, PITCHES), np.float32)
        self.magnitudes(LOWEST_MIDI, self.new_state())  # finds out now what does not fit

    def new_state(self) -> State:
        """The state of a voice that has not sounded."""
        return {name: np.zeros(shape, kind) for name, (shape, kind) in self._states.items()}

    def magnitudes(self, pitch: int, state: State) -> tuple[FloatArray, State]:
        """One frame ``[F]`` of a voice on which `pitch` (MIDI) sounds, not negative, and the voice's next state.

        Raises
        ------
        ModelError
            The graph fails or gives something else than its metadata say.
        """
        self._notes.fill(0.0)
        self._notes[0, pitch - LOWEST_MIDI] = 1.0
        found = _run(self._path, self._session, self._outputs, {"notes": self._notes, **self._timbre, **state})
        magnitude = found["magnitude"]
        if magnitude.shape != (1, 1, self.bins) or not np.isfinite(magnitude).all():
            raise GraphError(
                f"{self._path}: 'magnitude' came out as {list(magnitude.shape)}; [1, 1, {self.bins}] finite numbers "
                "are needed."
            )
        return np.maximum(magnitude[0, 0], 0.0), {name: found[name.replace(STATE_IN, STATE_OUT, 1)] for name in state}


def _companion(model: Path, path: Path, kind: str) -> Path:
    if path.is_file():
        return path
    raise ModelNotFoundError(
        f"The model {model.stem} has no {_NAMES[kind]}: {path} is not there. {models_with(kind)} See: rtsep models list"
    )


def _read_metadata(cls: type[_T], path: Path, key: str, special: Mapping[str, Any]) -> _T:
    text = read_properties(path).get(key)
    try:
        if text is None:
            raise metadata_error(f"It has no {key!r} metadata.")
        document = load_object(text, f"The {key!r} metadata")
        if document.get("format") != FORMAT:
            raise metadata_error(f"It has the {key!r} format {document.get('format')!r}; this rtsep reads {FORMAT}.")
        return read_fields(cls, document, f"The {key!r} metadata", special=special)
    except ModelError as error:
        reason = str(error).removesuffix(" See docs/contract.md.")
        raise type(error)(f"{path}: {reason} Export it again with: python -m export. See docs/queries.md.") from error


def _check_names(path: Path, side: str, nodes: Any, wanted: set[str]) -> None:
    names = {node.name for node in nodes}
    if names != wanted:
        raise GraphError(
            f"{path} has the {side} {', '.join(sorted(names))}; needed are {', '.join(sorted(wanted))}. "
            "See docs/queries.md."
        )


def _run(path: Path, session: Any, names: list[str], feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    # The exceptions of ONNX Runtime's binding have no base of their own below Exception.
    except Exception as error:
        raise ModelFileError(f"{path} cannot be run: {' '.join(str(error).split())}.") from error
