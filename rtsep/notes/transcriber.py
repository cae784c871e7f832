"""Transcribers: small graphs that turn the sound of stems into note posteriors, frame by frame.

One file serves several stems at once (batch) and every position of the latency dial (its outputs have one entry each).
What such a file must look like is in ``docs/transcribers.md``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import AUDIO, ELEMENT_TYPES, STATE_IN, STATE_OUT
from rtsep.errors import GraphError, ModelError, ModelFileError, ModelNotFoundError
from rtsep.inference.buffers import Buffers, TensorLayout
from rtsep.inference.provider import open_session
from rtsep.notes.transcriber_info import read_transcriber_info

Audio = NDArray[np.float32]

_OUTPUTS = ("onset", "frame", "velocity")


class Transcriber:
    """A transcriber, loaded for a number of stems.

    Parameters
    ----------
    path : path
    stems : int
        Streams to transcribe side by side, 1 or more.
    latency : str
        Position of the dial.

    Attributes
    ----------
    info : TranscriberInfo
    position : DialPosition

    Raises
    ------
    ModelError
        The file is damaged, or does not do what its metadata say.
    UsageError
        It has no such latency.

    Notes
    -----
    `push` takes no lock and allocates no big arrays; it is meant for the notes process, not for the audio worker.
    """

    def __init__(self, path: str | os.PathLike[str], stems: int, latency: str = "normal") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelNotFoundError(f"No transcriber {self.path}.")
        self.info = info = read_transcriber_info(self.path)
        self._dial = info.position(latency)
        self.position = info.dial[self._dial]
        self.stems = stems
        session = open_session(self.path, "cpu", 1).session
        inputs = {spec.name: self._layout(spec) for spec in session.get_inputs()}
        states = {name.removeprefix(STATE_IN): lay for name, lay in inputs.items() if name.startswith(STATE_IN)}
        if inputs.pop(AUDIO, (None,))[0] != (stems, 1, info.hop_samples) or len(states) != len(inputs):
            raise GraphError(f"{self.path}: its inputs must be {AUDIO!r} [B, 1, {info.hop_samples}] and states.")
        feed = {AUDIO: np.zeros((stems, 1, info.hop_samples), np.float32)}
        feed |= {STATE_IN + name: np.zeros(*layout) for name, layout in states.items()}
        names = [spec.name for spec in session.get_outputs()]
        try:
            results = dict(zip(names, session.run(None, feed), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise ModelFileError(f"{self.path} cannot be run for {stems} stems: {error}") from error
        self._check(states, results)
        outputs: dict[str, TensorLayout] = {
            name: (array.shape, array.dtype) for name, array in results.items() if not name.startswith(STATE_OUT)
        }
        layouts: dict[str, TensorLayout] = {AUDIO: (feed[AUDIO].shape, feed[AUDIO].dtype)}
        self._buffers = Buffers(session, "cpu", states, layouts, outputs)
        self._parity = 0
        self._latest: dict[str, Audio] = {
            name: np.zeros(*layout) for name, layout in outputs.items() if name.startswith("notes/")
        }

    def _layout(self, spec: Any) -> TensorLayout:
        shape = tuple(self.stems if index == 0 else axis for index, axis in enumerate(spec.shape))
        if spec.type not in ELEMENT_TYPES or not all(isinstance(axis, int) for axis in shape):
            raise GraphError(f"{self.path}: input {spec.name!r} is {spec.type} {spec.shape}.")
        return shape, np.dtype(ELEMENT_TYPES[spec.type])

    def _check(self, states: dict[str, TensorLayout], results: dict[str, NDArray[Any]]) -> None:
        info = self.info
        shape = (self.stems, len(info.dial), info.frames_per_hop, len(info.midi_notes))
        wanted: dict[str, tuple[int, ...]] = {f"notes/{name}": shape for name in _OUTPUTS}
        if info.kind == "monophonic":
            wanted["notes/pitch"] = shape[:-1]
        wanted |= {STATE_OUT + name: layout[0] for name, layout in states.items()}
        for name, expected in wanted.items():
            if name not in results or results[name].shape != expected:
                found = "missing" if name not in results else str(list(results[name].shape))
                raise GraphError(f"{self.path}: output {name!r} is {found}; {list(expected)} is needed.")
        if extra := sorted(set(results) - set(wanted)):
            raise GraphError(f"{self.path} has outputs that nobody reads: {', '.join(extra)}.")
        if not all(np.isfinite(array).all() for array in results.values()):
            raise ModelError(f"{self.path} does not give finite numbers for silence.")

    def reset(self) -> None:
        """Forget all past audio."""
        self._buffers.zero_states()
        self._parity = 0

    def push(self, audio: Audio) -> dict[str, Audio]:
        """Take one hop.

        Parameters
        ----------
        audio : array [B, hop]
            float32 at ``info.samplerate``. NaN and infinity count as 0.

        Returns
        -------
        dict
            ``onset``, ``frame``, ``velocity`` ``[B, N, P]`` of the chosen latency, and ``pitch`` ``[B, N]`` (MIDI
            numbers with fractions, 0 where there is none) of a monophonic one. Valid until the push after next.
        """
        target = self._buffers.inputs[AUDIO][:, 0]
        np.copyto(target, audio)
        np.nan_to_num(target, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        self._buffers.run(self._parity)
        outputs = {n: a for n, a in self._buffers.outputs[self._parity].items() if n.startswith("notes/")}
        self._parity = 1 - self._parity
        self._latest = outputs
        found = {name.removeprefix("notes/"): array[:, self._dial] for name, array in outputs.items()}
        if not np.isfinite(found["onset"]).all():  # a state that went wrong would stay wrong
            self.reset()
            for array in outputs.values():
                array.fill(0.0)
        return found

    def positions(self, stem: int, frame: int) -> list[tuple[Audio, Audio, Audio, float]]:
        """Return what every position of the dial said in the last push of a stem (by index) and frame of the hop.

        Returns
        -------
        list
            ``onset``, ``frame``, ``velocity`` [P], and the momentary pitch of a monophonic one, else 0. Position d
            speaks of the frame ``info.lookaheads[d]`` frames ago. Valid until the push after next.
        """
        said = self._latest
        pitch = said.get("notes/pitch")
        onset, level, velocity = (said[f"notes/{name}"][stem] for name in _OUTPUTS)
        return [
            (
                onset[d, frame],
                level[d, frame],
                velocity[d, frame],
                0.0 if pitch is None else float(pitch[stem, d, frame]),
            )
            for d in range(len(self.info.dial))
        ]
