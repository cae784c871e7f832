"""A model, hop by hop: checks on loading, state in place, the same result every time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import (
    AUDIO,
    CONTROL,
    ELEMENT_TYPES,
    NOTES,
    STATE_IN,
    STATE_OUT,
    STEMS,
    ModelInfo,
    TensorSpec,
    check_graph,
)
from rtsep.controls import checked_values, find_control
from rtsep.errors import GraphError, ModelError, ModelFileError, StateMismatchError, UsageError
from rtsep.inference.buffers import Buffers, TensorLayout
from rtsep.inference.onnx_file import read_info
from rtsep.inference.provider import Provider, open_session, short_name

FloatArray = NDArray[np.float32]

_FLOAT32 = np.dtype(np.float32)


class StreamingSession:
    """Runs a model that follows the streaming contract, one hop per call.

    Opening reads the metadata, loads the graph, checks it against the metadata, runs one hop of silence whose
    results are checked against what was declared, warms up, and resets. It allocates and takes a while
    (ONNX Runtime holds the GIL for most of it): not for an audio thread.

    Parameters
    ----------
    model : str or path
        Name of a shipped model, ``"default"``, or the path of an ``.onnx`` file.
    provider : {"auto", "cpu", "cuda"}
        Default ``"auto"``: CUDA where it works, else the CPU, with the reason in `provider_note`. ``"cuda"``
        raises when it is not obtained.
    threads : int
        Intra-op threads of ONNX Runtime, 1 or more; default 1. Streaming models are small: more threads often
        cost more than they give.
    warmup_hops : int
        Hops of silence run after the checks, 0 or more; default 3.

    Attributes
    ----------
    info : ModelInfo
        The metadata of the model.
    path : pathlib.Path
        The file.
    provider_asked, provider : str
        What was asked for, and ``"cpu"`` or ``"cuda"`` as ONNX Runtime reports it after loading.
    provider_note : str or None
        Why ``"auto"`` did not give CUDA.
    threads : int
        As given.
    nonfinite_samples : int
        Input samples that were NaN or infinite and were taken as 0 instead, since opening.
    recovered_hops : int
        Hops whose result was not finite (numbers too large for the model, say), since opening. Such a hop
        returns zeros and the state starts anew, so that one bad hop never poisons the following ones.

    Raises
    ------
    ModelNotFoundError
        No such model or file.
    ModelFileError
        The file is not ONNX, is truncated, or cannot be loaded or run.
    MetadataError, ContractVersionError
        The metadata is missing, malformed, or of another contract version.
    GraphError, StateMismatchError
        The graph does not do what the metadata says.
    ProviderError
        ``"cuda"`` was asked for and not obtained.
    UsageError
        An argument is outside what is said above.

    Notes
    -----
    One thread at a time may use a session; `set_control` alone may be called from another one. A session
    cannot be shared between processes.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        provider: Provider = "auto",
        threads: int = 1,
        warmup_hops: int = 3,
    ) -> None:
        if isinstance(warmup_hops, bool) or not isinstance(warmup_hops, int) or warmup_hops < 0:
            raise UsageError(f"warmup_hops is {warmup_hops!r}; an integer of 0 or more is needed.")
        from rtsep.zoo.registry import resolve

        self.path: Path = resolve(model)
        # Before ONNX Runtime sees the file, so that a wrong version is not reported as an unknown operator.
        self.info: ModelInfo = read_info(self.path)
        opened = open_session(self.path, provider, threads)
        session = opened.session
        self.provider_asked: str = provider
        self.provider: str = short_name(session)
        self.provider_note: str | None = opened.note
        self.threads = threads
        self.nonfinite_samples = 0
        self.recovered_hops = 0

        input_specs = _specs(session.get_inputs())
        output_specs = _specs(session.get_outputs())
        try:
            check_graph(self.info, input_specs, output_specs)
            layouts = {name: _layout(spec) for name, spec in input_specs.items()}
            results = _zero_hop(session, layouts)
            _check_zero_hop(self.info, layouts, results)
        except ModelError as error:
            raise type(error)(f"{self.path}: {error}") from error

        outputs = {name: (array.shape, array.dtype) for name, array in results.items()}
        self._buffers: Buffers | None = Buffers(
            session,
            self.provider,
            states={name.removeprefix(STATE_IN): lay for name, lay in layouts.items() if name.startswith(STATE_IN)},
            inputs={name: lay for name, lay in layouts.items() if not name.startswith(STATE_IN)},
            outputs={name: lay for name, lay in outputs.items() if not name.startswith(STATE_OUT)},
        )
        self._parity = 0
        self._audio: FloatArray = self._buffers.inputs[AUDIO][0]  # [C, hop]
        self._audio_shape: tuple[int, ...] | None = self._audio.shape
        self._audio_finite = np.zeros(self._audio.shape, np.bool_)
        self._results: list[list[FloatArray]] = [
            [arrays[name][0] for name in (STEMS, *NOTES) if name in arrays] for arrays in self._buffers.outputs
        ]  # by parity: stems [S, C, hop], then notes [S', N, P]
        self._results_finite = [np.zeros(array.shape, np.bool_) for array in self._results[0]]
        self._notes = self._views_of_notes()
        self._pending_controls: dict[str, FloatArray] = {}
        for control in self.info.controls:
            default = np.array(control.default, np.float32)
            self._pending_controls[control.name] = default.reshape(control.shape)
        silence = np.zeros_like(self._audio)
        for _ in range(warmup_hops):
            self.step(silence)
        self.reset()

    # --- real-time side -------------------------------------------------------------------------------------

    def step(self, audio: FloatArray) -> FloatArray:
        """Separate one hop.

        Real-time safe on the CPU: no allocation beyond NumPy views, no lock, no logging; ONNX Runtime
        releases the GIL while it computes.

        Parameters
        ----------
        audio : ndarray
            float32 ``[C, hop]``, C-contiguous, full scale 1.0. Copied. NaN and infinity count as 0.

        Returns
        -------
        ndarray
            float32 ``[S, C, hop]``, the stems of the audio ``info.latency_samples`` earlier. A view of the
            session's memory, valid until the step after next.

        Raises
        ------
        UsageError
            `audio` has another shape, dtype or layout, or the session is closed.
        """
        if (
            not isinstance(audio, np.ndarray)
            or audio.shape != self._audio_shape
            or audio.dtype != _FLOAT32
            or not audio.flags.c_contiguous
            or self._buffers is None
        ):
            raise self._wrong_audio(audio)
        while self._pending_controls:
            self._apply_control(*self._pending_controls.popitem())

        np.copyto(self._audio, audio)
        np.isfinite(self._audio, out=self._audio_finite)
        if not self._audio_finite.all():
            np.logical_not(self._audio_finite, out=self._audio_finite)
            self.nonfinite_samples += int(np.count_nonzero(self._audio_finite))
            np.copyto(self._audio, 0.0, where=self._audio_finite)

        parity = self._parity
        self._buffers.run(parity)
        self._parity = 1 - parity
        results = self._results[parity]
        for array, finite in zip(results, self._results_finite, strict=True):
            np.isfinite(array, out=finite)
            if not finite.all():
                self._recover(results)
                break
        return results[0]

    @property
    def notes(self) -> Mapping[str, FloatArray] | None:
        """Note posteriors of the last step: ``onset``, ``frame`` and ``velocity``, each ``[S', N, P]``.

        None when the model gives no notes. Views, valid until the step after next; zeros after a reset.
        Real-time safe.
        """
        # The last step wrote the parity that is not next.
        return self._notes[1 - self._parity] if self._notes else None

    def reset(self) -> None:
        """Forget the past: the next steps give what those of a newly opened session would, bit for bit.

        Controls keep their values and counters go on. In place, real-time safe on the CPU.

        Raises
        ------
        UsageError
            The session is closed.
        """
        if self._buffers is None:
            raise self._closed()
        self._buffers.zero_states()
        for arrays in self._results:
            for array in arrays[1:]:
                array.fill(0)

    # --- control side ---------------------------------------------------------------------------------------

    def set_control(self, name: str, values: float | Sequence[float] | NDArray[Any]) -> None:
        """Set a control from the next step on. May be called from any thread; allocates.

        Parameters
        ----------
        name : str
            One of ``info.controls``, without ``control/``.
        values : array_like
            Of the control's shape (a number for ``()``), each within its range.

        Raises
        ------
        UsageError
            No such control, another shape, or a value that is not a number or out of range. The control keeps
            its value.
        """
        if self._buffers is None:
            raise self._closed()
        array = checked_values(find_control(self.info, name), values)
        # A dictionary assignment is atomic under the GIL, and step() takes whole arrays out: no torn values.
        self._pending_controls[name] = array

    def control(self, name: str) -> FloatArray:
        """Return a copy of the values the next step will use.

        Raises
        ------
        UsageError
            No such control, or the session is closed.
        """
        if self._buffers is None:
            raise self._closed()
        find_control(self.info, name)
        pending = self._pending_controls.get(name)
        return (self._buffers.inputs[CONTROL + name][0, ...] if pending is None else pending).copy()

    def close(self) -> None:
        """Free the model. Arrays returned before stay valid. A second call does nothing."""
        self._buffers = None
        self._audio_shape = None

    def __enter__(self) -> StreamingSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside ---------------------------------------------------------------------------------------------

    def _views_of_notes(self) -> list[dict[str, FloatArray]]:
        if self.info.notes is None:
            return []
        names = [name.removeprefix("notes/") for name in NOTES]
        return [dict(zip(names, arrays[1:], strict=True)) for arrays in self._results]

    def _apply_control(self, name: str, values: FloatArray) -> None:
        assert self._buffers is not None
        np.copyto(self._buffers.inputs[CONTROL + name][0, ...], values)
        self._buffers.upload(CONTROL + name)

    def _recover(self, results: list[FloatArray]) -> None:
        assert self._buffers is not None
        self.recovered_hops += 1
        self._buffers.zero_states()
        for array in results:
            array.fill(0)

    def _closed(self) -> UsageError:
        return UsageError(f"The session of {self.path.name} is closed; open a new one.")

    def _wrong_audio(self, audio: object) -> UsageError:
        if self._buffers is None:
            return self._closed()
        wanted = f"a C-contiguous float32 array [{self.info.channels}, {self.info.hop_samples}]"
        if not isinstance(audio, np.ndarray):
            return UsageError(f"step() needs {wanted}; got {type(audio).__name__}.")
        layout = "" if audio.flags.c_contiguous else "non-contiguous "
        return UsageError(f"step() needs {wanted}; got {layout}{audio.dtype} {list(audio.shape)}.")


def _specs(nodes: Sequence[Any]) -> dict[str, TensorSpec]:
    return {node.name: (tuple(node.shape), node.type) for node in nodes}


def _layout(spec: TensorSpec) -> TensorLayout:
    """Return the layout for a batch of 1; `check_graph` has seen to it that only the batch is a symbol."""
    shape, element_type = spec
    sizes = tuple(size if isinstance(size, int) else 1 for size in shape)
    return sizes, np.dtype(ELEMENT_TYPES[element_type])


def _zero_hop(session: Any, layouts: Mapping[str, TensorLayout]) -> dict[str, NDArray[Any]]:
    """Run one hop of silence from zero states, outside the bound memory, so that shapes show as they are."""
    feed = {name: np.zeros(*layout) for name, layout in layouts.items()}
    names = [node.name for node in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    # The exceptions of ONNX Runtime's binding have no base of their own below Exception.
    except Exception as error:
        raise ModelFileError(
            f"One hop of silence cannot be run: {' '.join(str(error).split())}. Export it again with: python -m export"
        ) from error


def _check_zero_hop(info: ModelInfo, layouts: Mapping[str, TensorLayout], results: Mapping[str, NDArray[Any]]) -> None:
    """Hold what the first hop gave against what the graph and the metadata declare."""
    expected: dict[str, tuple[int, ...]] = {STEMS: (1, len(info.stems), info.channels, info.hop_samples)}
    if info.notes is not None:
        cells = (1, len(info.notes.stems), info.notes.frames_per_hop, info.notes.pitches)
        expected.update(dict.fromkeys(NOTES, cells))
    for name, array in results.items():
        if name.startswith(STATE_OUT):
            path = name.removeprefix(STATE_OUT)
            shape, dtype = layouts[STATE_IN + path]
            if array.shape != shape or array.dtype != dtype:
                raise StateMismatchError(
                    f"When run, {name!r} came out as {array.dtype} {list(array.shape)}; "
                    f"{STATE_IN + path!r} is {dtype} {list(shape)}. See docs/contract.md."
                )
        elif array.shape != expected[name]:
            raise GraphError(
                f"When run, {name!r} came out as {list(array.shape)}; the metadata asks for "
                f"{list(expected[name])}. See docs/contract.md."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise GraphError(f"{name!r} is not finite after one hop of silence. See docs/contract.md.")
