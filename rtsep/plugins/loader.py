"""Plugins of pedalboard as objects that take a block and give a block of the same length."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import PluginError, UsageError
from rtsep.plugins.catalog import Parameter, check_values, find_effect
from rtsep.plugins.spec import PluginSpec, Value

Audio = NDArray[np.float32]

BUFFER = 8192
_HZ_NAMES = ("cutoff_frequency_hz", "cutoff_hz", "centre_frequency_hz")
# What plugins built with DPF show as parameters and the host alone decides.
_HOST_OWNED = ("buffer_size_frames", "sample_rate_frames", "latency_frames")
_PROBE_S = 3.0
"""Longest latency that is looked for."""
_PROBE_LIMIT_S = 1.0
_HUNG: list[Any] = []  # kept for ever: taking a plugin apart that still works would hang, too


def load_pedalboard() -> Any:
    """Return the module; PluginError with what to install when it is missing."""
    try:
        import pedalboard
    except ImportError as error:
        raise PluginError(
            f"Plugins need pedalboard, which cannot be loaded ({error}). Install it with: pip install 'rtsep[plugins]'"
        ) from error
    return pedalboard


def preload() -> None:
    """Do now what the first plugin would otherwise have to wait for; nothing where pedalboard is missing."""
    with contextlib.suppress(PluginError):
        LoadedPlugin(PluginSpec("Gain"), 2, 48_000, 512).close()


@contextlib.contextmanager
def own_arithmetic() -> Iterator[None]:
    """Keep this thread's floating-point mode: what was built with -ffast-math takes subnormals from its loader."""
    library: Any = None
    with contextlib.suppress(OSError, TypeError):
        library = ctypes.CDLL(None)
    if not hasattr(library, "fegetenv"):  # Windows
        yield
        return
    kept = ctypes.create_string_buffer(256)  # larger than any fenv_t
    library.fegetenv(kept)
    try:
        yield
    finally:
        library.fesetenv(kept)


class LoadedPlugin:
    """One plugin, ready to process.

    Parameters
    ----------
    spec : PluginSpec
        A file must have passed `rtsep.plugins.scan` before: this one loads it into the calling process.
    channels : int
        Of the audio, 1 or 2 for most plugins.
    samplerate : int
        Hz.
    block : int
        Samples of the longest block; the same in all blocks where ``needs_equal_blocks``.

    Attributes
    ----------
    latency_samples : int
        As the plugin reports it, or, for effects that begin by giving less than they take, as measured here.
    block_s : float
        What a block of silence took when it was loaded, in seconds; the shortest of some.
    parameters : dict of str to Parameter
    streams : bool
        False for an effect that gives silence when it gets its sound block by block, as pedalboard 0.9.26's PitchShift.

    Raises
    ------
    PluginError
        It is not there, cannot be loaded, or cannot process these channels.
    UsageError
        A parameter it does not have, or a value out of range.

    Notes
    -----
    Files load on the main thread of a process only: JUCE demands that. `process` and `apply` may then be called from
    one other thread. `process` allocates the block that it returns; pedalboard offers nothing else.
    """

    def __init__(self, spec: PluginSpec, channels: int, samplerate: int, block: int) -> None:
        self.spec, self.channels, self.samplerate = spec, channels, samplerate
        self.streams = True
        pedalboard = load_pedalboard()
        if spec.external:
            first = self._open_file(pedalboard)
            self.parameters = external_parameters(first)
            values = check_values(self.parameters, spec.parameters, spec.label, given=spec.plugin)
        else:
            effect = find_effect(spec.plugin)
            self.parameters = {parameter.name: parameter for parameter in effect.parameters}
            values = check_values(self.parameters, spec.parameters, effect.name)
            self._check_frequencies(values)
            first = self._open_builtin(pedalboard, effect.name, values)
        self._instances: list[Any] = [first]
        self._probe: Any = None
        self._probe_hangs = False
        self._mean = False
        self._fit(pedalboard, values, block)
        if spec.external:
            for instance in self._instances:
                if spec.raw_state is not None:
                    self._set_state(instance, spec.raw_state)
                for name, value in values.items():
                    setattr(instance, name, value)
        width = 1 if len(self._instances) > 1 else 2 if self._mean else channels
        self._probe_block: Audio = np.zeros((width, block), np.float32)
        # Asking for them anew takes pedalboard up to 100 ms.
        self._native_parameters = [dict(x.parameters) for x in self._instances] if spec.external else []
        self._waiting: Audio = np.zeros((channels, 0), np.float32)
        self._at = 0
        self.latency_samples = self._measure_latency(block)
        self._out: Audio = np.zeros((channels, block), np.float32)
        self.reset()

    @property
    def native(self) -> Any:
        """The object of pedalboard; the first where each channel has its own."""
        return self._instances[0]

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_file(self, pedalboard: Any) -> Any:
        spec = self.spec
        if not Path(spec.plugin).exists():
            raise PluginError(f"No plugin at {spec.plugin}. See: rtsep plugins list")
        if threading.current_thread() is not threading.main_thread():
            raise PluginError(f"{spec.label} can only be loaded on the main thread of a process.")
        # Not pedalboard.load_plugin, which loads everything twice.
        kind = pedalboard.VST3Plugin if spec.plugin.lower().endswith(".vst3") else pedalboard.AudioUnitPlugin
        collected_here = not gc.isenabled()
        if collected_here:
            gc.freeze()  # so that below only what this loading left is looked at
        try:
            with own_arithmetic():
                plugin = kind(spec.plugin, plugin_name=spec.name)
        except (ImportError, ValueError, RuntimeError) as error:
            raise PluginError(f"{spec.plugin} cannot be loaded: {_one_line(error)}") from error
        if collected_here:
            gc.collect(0)  # pedalboard leaves a second plugin behind, in a circle with its parameters
        if plugin.is_instrument:
            raise PluginError(f"{spec.label} is an instrument, which makes sound from notes; a chain takes effects.")
        return plugin

    def _open_builtin(self, pedalboard: Any, name: str, values: dict[str, Value]) -> Any:
        given: dict[str, Any] = dict(values)
        if name == "Convolution" and not given.get("impulse_response_filename"):
            raise UsageError("Convolution needs a recorded room: Convolution:impulse_response_filename=room.wav")
        try:
            for key, value in values.items():
                given[key] = self._native(pedalboard, name, key, value)
            return getattr(pedalboard, name)(**given)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise PluginError(f"{name} cannot be made: {_one_line(error)}") from error

    @staticmethod
    def _native(pedalboard: Any, effect: str, key: str, value: Value) -> Any:
        if effect == "LadderFilter" and key == "mode":
            return getattr(pedalboard.LadderFilter.Mode, str(value))
        return value

    def _check_frequencies(self, values: dict[str, Value]) -> None:
        for key, value in values.items():
            if key in _HZ_NAMES and float(value) >= 0.49 * self.samplerate:
                raise UsageError(
                    f"{self.spec.label}: {key} is {value:g}; at {self.samplerate} Hz it must be below "
                    f"{0.49 * self.samplerate:.0f}."
                )

    def _fit(self, pedalboard: Any, values: dict[str, Value], block: int) -> None:
        """Find out how the plugin takes these channels: all at once, one plugin a channel, or doubled."""
        silence: Audio = np.zeros((self.channels, block), np.float32)
        try:
            self._call(self._instances[0], silence)
            return
        except (ValueError, RuntimeError) as error:
            refusal = _one_line(error)
        try:
            self._call(self._instances[0], np.zeros((1, block), np.float32))
        except (ValueError, RuntimeError):
            pass
        else:
            for _ in range(self.channels - 1):
                self._instances.append(
                    self._open_file(pedalboard)
                    if self.spec.external
                    else self._open_builtin(pedalboard, self.spec.plugin, values)
                )
            for instance in self._instances:
                self._call(instance, np.zeros((1, block), np.float32))
            return
        if self.channels == 1:
            try:
                self._call(self._instances[0], np.zeros((2, block), np.float32))
            except (ValueError, RuntimeError):
                pass
            else:
                self._mean = True
                self._two: Audio = np.zeros((2, block), np.float32)
                return
        raise PluginError(f"{self.spec.label} does not take {self.channels} channels: {refusal}")

    def _set_state(self, instance: Any, state: bytes) -> None:
        try:
            instance.raw_state = state
        except Exception as error:  # whatever a plugin makes of the state of another one
            raise PluginError(f"{self.spec.label} refuses its stored state: {_one_line(error)}") from error

    def _measure_latency(self, block: int) -> int:
        """Return what the plugin reports, or how much less than it takes it gives; the latter is put into a queue."""
        reported = int(getattr(self._instances[0], "reported_latency_samples", 0))
        silence: Audio = np.zeros((self.channels, block), np.float32)
        for instance in self._instances:
            instance.reset()
        given, taken, missing = 0, 0, 0
        settled = 0
        self.block_s = math.inf
        while settled < 16:
            began = time.perf_counter()
            out = self._process_all(silence)
            self.block_s = min(self.block_s, time.perf_counter() - began)
            taken, given = taken + block, given + out.shape[1]
            settled = settled + 1 if taken - given <= missing else 0
            missing = max(missing, taken - given)
            if missing > _PROBE_S * self.samplerate:
                raise PluginError(f"{self.spec.label} gives no sound within {_PROBE_S:g} s.")
            if not missing and settled == 3:
                break
        if missing:
            self._waiting = np.zeros((self.channels, 2 * missing + 4 * block), np.float32)
        self._missing = missing
        if missing:
            self.streams = self._gives_sound(block)
        return missing or reported

    def _gives_sound(self, block: int) -> bool:
        """Whether anything comes out at all when sound is given block by block."""
        for instance in self._instances:
            instance.reset()
        tone = np.tile(np.sin(0.1 * np.arange(block)).astype(np.float32), (self.channels, 1))
        return any(self._process_all(tone).any() for _ in range(self._missing // block + 16))

    # --- sound --------------------------------------------------------------------------------------------------------

    def process(self, audio: Audio) -> Audio:
        """Return ``audio`` [C, n] processed, [C, n], valid until the next call.

        Raises
        ------
        RuntimeError, ValueError
            The plugin itself failed.
        """
        out = self._process_all(audio)
        if not self._missing:
            return out
        # Effects that begin by giving less than they take: what comes later is evened out by a queue.
        n, came = audio.shape[1], out.shape[1]
        self._waiting[:, self._at : self._at + came] = out
        self._at += came
        result = self._out[:, :n]
        result[:] = self._waiting[:, :n]
        rest = self._at - n
        self._waiting[:, :rest] = self._waiting[:, n : self._at].copy()
        self._at = rest
        return result

    def _process_all(self, audio: Audio) -> Audio:
        if self._mean:
            two = self._two[:, : audio.shape[1]]
            two[:] = audio
            return np.asarray(self._call(self._instances[0], two).mean(axis=0, keepdims=True), np.float32)
        if len(self._instances) == 1:
            return self._call(self._instances[0], audio)
        return np.concatenate([self._call(p, audio[c : c + 1]) for c, p in enumerate(self._instances)])

    def _call(self, instance: Any, audio: Audio) -> Audio:
        out: Audio = instance.process(audio, self.samplerate, BUFFER, False)
        return out

    def reset(self) -> None:
        """Forget all past sound. As real-time safe as the plugin is."""
        for instance in self._instances:
            instance.reset()
        if self._missing:
            self._waiting.fill(0.0)
            self._at = self._missing

    # --- settings -----------------------------------------------------------------------------------------------------

    def prepare(self, name: str, value: Value) -> tuple[Any, ...]:
        """Check a value and return it in the form `apply` takes; UsageError. Not for the audio thread."""
        values = check_values(self.parameters, {name: value}, self.spec.label, given=self.spec.plugin)
        if not self.spec.external:
            self._check_frequencies(values)
            native = self._native(load_pedalboard(), find_effect(self.spec.plugin).name, name, values[name])
            return tuple((instance, name, native) for instance in self._instances)
        return tuple(
            (parameter, "raw_value", parameter.get_raw_value_for(values[name]))
            for parameter in (parameters[name] for parameters in self._native_parameters)
        )

    @staticmethod
    def apply(prepared: tuple[Any, ...]) -> None:
        """Set what `prepare` returned; between two calls of `process`, from the thread that makes them."""
        for thing, name, value in prepared:
            setattr(thing, name, value)

    def reported_latency(self) -> int:
        """What the plugin reports now; many change it with a parameter."""
        return self._missing or int(getattr(self._instances[0], "reported_latency_samples", 0))

    def latency_with(self, name: str, value: Value) -> int:
        """Return the latency that a parameter would bring, of a second plugin kept for that question. Main thread.

        JUCE hears of a new latency on the main thread alone, so the plugin that plays elsewhere cannot tell.
        """
        if not self.spec.external or self._missing or self._probe_hangs:
            return self.latency_samples
        if self._probe is None:
            self._probe = self._open_file(load_pedalboard())
            self._set_state(self._probe, self._instances[0].raw_state)
        probe = self._probe
        setattr(probe, name, value)
        # A value may make it hang: then the one that plays will show that, and be left out.
        thread = threading.Thread(target=self._try_probe, args=(probe,), daemon=True)
        thread.start()
        thread.join(_PROBE_LIMIT_S)
        if thread.is_alive():
            self._probe_hangs = True
            _HUNG.append(probe)
            self._probe = None
            return self.latency_samples
        probe.reset()  # which prepares it anew, and so asks for its latency on this thread
        return int(probe.reported_latency_samples)

    def _try_probe(self, probe: Any) -> None:
        with contextlib.suppress(ValueError, RuntimeError):  # the one that plays will raise it, too
            self._call(probe, self._probe_block)

    def close(self) -> None:
        """Let go of the plugins. They and their parameters refer to each other, and an engine's collector is off."""
        self._native_parameters.clear()
        for instance in (*self._instances, *([self._probe] if self._probe is not None else [])):
            for held in vars(instance).values() if self.spec.external else ():
                if isinstance(held, dict):
                    held.clear()
        self._instances.clear()
        self._probe = None

    def state(self) -> bytes | None:
        """All of a file plugin's own state; None for built-in effects."""
        return bytes(self._instances[0].raw_state) if self.spec.external else None

    def values(self) -> dict[str, Value]:
        """What the parameters are set to now."""
        found: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            if parameter.kind == "file":
                found[name] = str(self.spec.parameters.get(name, ""))
                continue
            value = getattr(self._instances[0], name)
            found[name] = str(value).rpartition(".")[2] if not isinstance(value, (bool, int, float)) else value
            if parameter.kind == "choice":
                found[name] = str(self.spec.parameters.get(name, found[name]))
        return found


def external_parameters(plugin: Any) -> dict[str, Parameter]:
    """Return the parameters of a plugin from a file."""
    found: dict[str, Parameter] = {}
    for name, parameter in plugin.parameters.items():
        if name in _HOST_OWNED:
            continue
        if parameter.type is bool:
            found[name] = Parameter(name, "switch", bool(getattr(plugin, name)))
        elif parameter.type is float:
            low, high = (float(edge) for edge in parameter.range[:2])
            value = float(getattr(plugin, name))
            found[name] = Parameter(name, "number", value, low, high, parameter.units or "")
        else:
            choices = tuple(str(value) for value in parameter.valid_values)
            found[name] = Parameter(name, "choice", str(getattr(plugin, name)), choices=choices)
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
