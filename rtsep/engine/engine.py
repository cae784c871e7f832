"""Control side of the engine: starts the engine process, sets its parameters, reads its state."""

from __future__ import annotations

import collections
import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rtsep import errors
from rtsep.audio.backends import BackendConfig
from rtsep.contract import ModelInfo
from rtsep.engine.config import EngineConfig, choose_backend
from rtsep.engine.mix import MixerControls
from rtsep.engine.plugins import PluginControls
from rtsep.engine.song import SongControls
from rtsep.engine.stems import StemControls
from rtsep.engine.wire import Wire, end_child, error_of, start_child
from rtsep.errors import EngineError, RtsepError, UsageError
from rtsep.latency import LatencyReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtsep.controls import Values
    from rtsep.engine.late import LateHop
    from rtsep.engine.shared import SharedBlock
    from rtsep.engine.stats import EngineStats
    from rtsep.mixer.meters import Meters
    from rtsep.plugins.spec import PluginSpec

_STOP_S = 8.0


class Engine(MixerControls, PluginControls, SongControls, StemControls):
    """Separate and mix live, in a process of its own; context manager.

    ::

        with Engine("default", input_device="scarlett", output_device="scarlett", mute=["vocals"]) as engine:
            print(engine.latency().total_ms)
            engine.set_gain("drums", -6.0)
            engine.wait(60.0)

    Parameters
    ----------
    model : str or path
        Name of a shipped model, ``"default"``, or the path of an ``.onnx`` file.
    backend : {"portaudio", "file", "dummy"} or a backend's configuration
        A configuration (`PortAudioConfig`, `FileConfig`, `DummyConfig`) says everything; the device arguments below are
        then not allowed.
    input_device, output_device : int, str or None
        Index or part of a name (PortAudio).
    samplerate : int, optional
        Hz; the device's own when None. Rates that are not native to the model are resampled, which adds latency.
    blocksize : int
        Frames per callback; 0 leaves it to the device.
    channels : sequence of int, optional
        1-based input channels, for example ``(3, 4)``.
    output_channels : sequence of int, optional
        1-based output channels (PortAudio).
    slack_hops : int
        Hops the worker may be late, 0 to 64; each adds a hop of latency.
    provider : {"auto", "cpu", "cuda"}
    threads : int
        Intra-op threads of ONNX Runtime.
    mute, solo : iterable of str
        Stems to start with muted or soloed.
    gain, pan : mapping of str to float
        dB, -120 to 24; -1 (left) to 1 (right).
    master_db : float
    controls : mapping of str to float, sequence or array, optional
        Values of the model's controls to start with, such as ``{"condition": [1, 1, 1, 0]}``.
    chains : mapping of str to iterable of PluginSpec, optional
        Plugins that stems, or ``"master"``, go through; `set_chain` changes them while it plays.
    bypass, limiter : bool
    record : path, optional
        WAV file for what is heard.
    **settings
        Further fields of `EngineConfig`: ``song``, ``resampler``, ``realtime``, ``reset_after_s``,
        ``device_timeout_s``, ``start_timeout_s``.

    Raises
    ------
    UsageError
        A value is out of range, or an argument does not go with the backend.

    Notes
    -----
    Nothing is started or loaded before `start` (or ``with``). Methods may be called from any thread of the control
    process; none of them can disturb the audio.
    """

    def __init__(
        self,
        model: str | Path = "default",
        *,
        backend: Literal["portaudio", "file", "dummy"] | BackendConfig = "portaudio",
        input_device: int | str | None = None,
        output_device: int | str | None = None,
        samplerate: int | None = None,
        blocksize: int = 0,
        channels: Sequence[int] | None = None,
        output_channels: Sequence[int] | None = None,
        slack_hops: int = 1,
        provider: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 1,
        mute: Iterable[str] = (),
        solo: Iterable[str] = (),
        gain: Mapping[str, float] | None = None,
        pan: Mapping[str, float] | None = None,
        master_db: float = 0.0,
        controls: Mapping[str, Values] | None = None,
        chains: Mapping[str, Iterable[PluginSpec]] | None = None,
        bypass: bool = False,
        limiter: bool = False,
        record: str | Path | None = None,
        **settings: Any,
    ) -> None:
        from rtsep.controls import LastControls

        super().__init__()
        device: dict[str, Any] = {
            "input_device": input_device,
            "output_device": output_device,
            "samplerate": samplerate,
            "blocksize": blocksize or None,
            "channels": tuple(channels) if channels is not None else None,
            "output_channels": tuple(output_channels) if output_channels is not None else None,
        }
        for key in settings:
            if key not in EngineConfig.__dataclass_fields__:
                hint = errors.suggest(key, EngineConfig.__dataclass_fields__)
                raise UsageError(f"Engine has no argument {key!r}.{hint}")
        self.config = EngineConfig(
            model=str(model),
            backend=choose_backend(backend, {key: value for key, value in device.items() if value is not None}),
            slack_hops=slack_hops,
            provider=provider,
            threads=threads,
            mute=tuple(mute),
            solo=tuple(solo),
            gain=dict(gain or {}),
            pan=dict(pan or {}),
            master_db=master_db,
            controls=dict(controls or {}),
            chains={target: tuple(specs) for target, specs in (chains or {}).items()},
            bypass=bypass,
            limiter=limiter,
            record=None if record is None else str(record),
            **settings,
        )
        self.exit_error: RtsepError | None = None
        """What ended the engine, when it was not asked to; None otherwise."""
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._shared: SharedBlock | None = None
        self._meters: Meters | None = None
        self._ready: dict[str, Any] | None = None
        self._latency: LatencyReport | None = None
        self._answered = threading.Event()
        self._changing, self._changes = threading.Lock(), queue.SimpleQueue[RtsepError | None]()
        self._ended = threading.Event()
        self._asked_to_stop = False
        self._controls, self._next_controls = LastControls(self.config.controls), dict[str, Any]()
        self.models_played = 0
        """Counts the models that took over while it played."""
        self._talk: collections.deque[str] = collections.deque(maxlen=40)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine process, load the model, open and start the device.

        Raises
        ------
        ModelError, DeviceError, AudioFileError, StemNotFoundError, UsageError
            As the engine process found it.
        EngineError
            The process died or did not answer within ``start_timeout_s``.
        UsageError
            The engine was started before.
        """
        from rtsep.engine.shared import SharedBlock

        if self._process is not None:
            raise UsageError("This engine was started before; make a new one.")
        chains, patience = self._admitted()
        self._shared = SharedBlock()
        try:
            self._process, self._wire = start_child("rtsep.engine.process")
            listeners = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._overhear)]
            for thread in listeners:
                thread.start()
            config = replace(self.config, chains=chains)
            self._wire.send("configure", config=config, shared=str(self._shared.path))
            answered = self._answered.wait(self.config.start_timeout_s + patience)
        except BaseException:
            self._kill()
            raise
        if self._ready is None:
            if not answered:
                self._kill()
                raise EngineError(
                    f"The engine process did not answer within {self.config.start_timeout_s:.0f} s. See: rtsep doctor"
                )
            self._ended.wait(_STOP_S)
            self._kill()
            raise self.exit_error or EngineError("The engine process ended before it began. See: rtsep doctor")
        self._settings, self._meters = self._shared.mixer(self.info.stems)
        self._keep_all(self._ready["chains"])

    def stop(self) -> None:
        """End the engine: files are closed and valid when this returns. More than once, or before `start`, is fine."""
        process = self._process
        if process is None:
            return
        self._asked_to_stop = True
        self._unlink_taps()
        if process.poll() is None and self._wire is not None:
            self._wire.send("stop")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        self._kill()
        self._ended.wait(2.0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end (of a file, of a device); return whether it came within `timeout` seconds.

        Raises
        ------
        RtsepError
            `exit_error`, when the engine ended because of one.
        """
        ended = self._ended.wait(timeout)
        if ended and self.exit_error is not None:
            raise self.exit_error
        return ended

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and self.exit_error is not None:
            raise self.exit_error

    @property
    def running(self) -> bool:
        """Started, and not ended yet."""
        return self._ready is not None and not self._ended.is_set()

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """The model's metadata. UsageError before `start`."""
        return ModelInfo.from_json(self._started()["info"])

    @property
    def model_path(self) -> Path:
        """File of the model that plays. UsageError before `start`."""
        return Path(self._started()["path"])

    @property
    def provider(self) -> str:
        """The execution provider obtained. UsageError before `start`."""
        return str(self._started()["provider"])

    @property
    def samplerate(self) -> int:
        """The device's rate in hertz. UsageError before `start`."""
        return int(self._started()["samplerate"])

    @property
    def model_samplerate(self) -> int:
        """The rate the model runs at, in hertz. UsageError before `start`."""
        return int(self._started()["model_samplerate"])

    @property
    def pid(self) -> int:
        """Of the engine process. UsageError before `start`."""
        return int(self._started()["pid"])

    @property
    def shared_path(self) -> Path:
        """File of the `rtsep.engine.shared.SharedBlock`, for readers in other processes. UsageError before `start`."""
        self._started()
        assert self._shared is not None
        return self._shared.path

    def latency(self) -> LatencyReport:
        """Return the latency part by part. UsageError before `start`."""
        self._started()
        assert self._latency is not None
        return self._latency

    # --- what it does -------------------------------------------------------------------------------------------------

    @property
    def position_samples(self) -> int:
        """Frames the device has captured since the start: its clock. 0 before `start`."""
        if self._shared is None:
            return 0
        from rtsep.engine.stats import INDEX

        return int(self._shared.counters[INDEX["position"]])

    def meters(self) -> Meters:
        """Return a snapshot of all levels. UsageError before `start`."""
        self._started()
        assert self._meters is not None
        return self._meters.copy()

    def stats(self) -> EngineStats:
        """Return a snapshot of the statistics; the last one after `stop`. UsageError before `start`."""
        from rtsep.engine.stats import stats_from

        self._started()
        assert self._shared is not None
        return stats_from(self._shared.counters, self._shared.histogram)

    def hop_histogram(self) -> NDArray[np.int64]:
        """Return how many hops took how long, by `rtsep.engine.stats.bin_of`; counted anew after `change_model`."""
        self._started()
        assert self._shared is not None
        return self._shared.histogram.copy()

    def late_hops(self) -> list[LateHop]:
        """Return the last 32 late hops with what they coincided with, the oldest first. UsageError before `start`."""
        from rtsep.engine.late import late_hops_from

        self._started()
        assert self._shared is not None
        return late_hops_from(self._shared.late, self.samplerate)

    # --- controls -----------------------------------------------------------------------------------------------------

    def set_control(self, name: str, values: Values) -> None:
        """Set a control of the model from its next hop on.

        Parameters
        ----------
        name : str
            One of ``info.controls``.
        values : float, sequence or array
            Of the control's shape, each within its range.

        Raises
        ------
        UsageError
            No such control, another shape, or a value out of range, as `StreamingSession.set_control`; the engine is
            not started.
        EngineError
            The engine has ended.
        """
        from rtsep.controls import checked_values, find_control

        checked = checked_values(find_control(self.info, name), values)
        self._command("control", name=name, values=checked)
        self._controls.put(name, checked)

    def control_values(self, name: str) -> NDArray[np.float32]:
        """Return what a control was set to last, of its shape; a copy. UsageError as `set_control`."""
        return self._controls.values(name, lambda: self.info)

    def change_model(self, model: str | Path, controls: Mapping[str, Values] | None = None) -> None:
        """Let another model take over while this one plays: warmed up, then cross-faded, without a gap.

        `info`, `latency` and what else depends on the model are the new one's afterwards; faders stay. Hop times are
        counted anew. Blocks until it is done: a second or two.

        Parameters
        ----------
        model : str or path
            With the stems and channels of the present one.
        controls : mapping, optional
            As at the start.

        Raises
        ------
        UsageError
            It has other stems or channels, or the stems are given out (notes, a take), whose delay must stay.
        ModelError
            It cannot be loaded.
        EngineError
            The machine is too busy for it. In all cases the present model plays on.
        """
        with self._changing:
            while not self._changes.empty():
                self._changes.get()
            self._next_controls = dict(controls or {})
            self._command("model", model=str(model), controls=self._next_controls)
            error = self._changes.get()
        if error is not None:
            raise error

    def reset_model(self) -> None:
        """Start the model's memory anew; the fallback covers the time it needs to be back."""
        self._command("reset")

    def inject(
        self, what: Literal["worker", "filler", "both", "stall", "vanish", "crash"], seconds: float = 0.0
    ) -> None:
        """Provoke a fault, for tests: put threads to sleep, stall or remove the dummy device, crash the process."""
        self._command("inject", what=what, seconds=seconds)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _started(self) -> dict[str, Any]:
        if self._ready is None:
            raise UsageError("The engine is not started: call start(), or use it in a with statement.")
        return self._ready

    def _command(self, kind: str, **values: Any) -> None:
        self._started()
        if self._wire is None or not self.running or not self._wire.send(kind, **values):
            raise self.exit_error or EngineError("The engine has ended.")

    def _listen(self) -> None:
        from rtsep.controls import LastControls

        assert self._wire is not None
        assert self._process is not None
        ended_well = False
        while (message := self._wire.receive()) is not None:
            kind = message["kind"]
            if kind == "ready":
                self._ready, self._latency = message, message["latency"]
                self._answered.set()
            elif kind == "latency":
                self._latency = message["latency"]
            elif kind in ("plugins", "plugin"):
                self._hear_plugins(message)
            elif kind == "tap":
                self._tap_answers.put(message)
            elif kind == "changed":
                self._latency = message["latency"]
                self._ready = {**(self._ready or {}), **message}
                self._keep_all(message["chains"])
                self._controls = LastControls(self._next_controls)
                self.models_played += 1
                self._changes.put(None)
            elif kind == "unchanged":
                self._changes.put(error_of(message))
            elif kind == "ended":
                ended_well = True
            elif kind == "error":
                self.exit_error = error_of(message)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        if not ended_well and self.exit_error is None and not self._killed_by_us():
            time.sleep(0.05)  # its last words are still in the other pipe
            self.exit_error = EngineError(self._obituary())
        self._ended.set()
        self._answered.set()
        self._changes.put(self.exit_error or EngineError("The engine ended before the model was changed."))
        self._tap_answers.put({"type": "EngineError", "message": "The engine has ended."})

    def _killed_by_us(self) -> bool:
        return self._asked_to_stop and self._process is not None and self._process.poll() == 0

    def _obituary(self) -> str:
        assert self._process is not None
        code = self._process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        last = "\n  ".join(self._talk)
        how += self._blame_plugin(how)
        return f"The engine process died ({how})." + (f" Its last words:\n  {last}" if last else " See: rtsep doctor")

    def _overhear(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stderr:
                self._talk.append(line.decode(errors="replace").rstrip())

    def _kill(self) -> None:
        if self._process is None:
            return
        end_child(self._process)
        if self._shared is not None:
            self._shared.unlink()
