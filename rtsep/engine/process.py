"""The engine process: ``python -m rtsep.engine.process``, started by `rtsep.engine.Engine` and by nothing else.

Its main thread only listens and watches. Commands come on stdin, whose end means the control process is gone; events go
out on what was stdout. Everything else that C libraries print goes to stderr.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from rtsep.engine.realtime import SERVICE_PRIORITY, lock_memory, make_thread_realtime, settle_interpreter
from rtsep.engine.wire import Wire
from rtsep.errors import DeviceLostError, EngineError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.audio.backends.base import Backend
    from rtsep.audio.song import SongBackend
    from rtsep.audio.song_config import SongConfig
    from rtsep.contract import ModelInfo
    from rtsep.engine.runner import ChainRunner
    from rtsep.inference.session import StreamingSession
    from rtsep.mixer.meters import Meters
    from rtsep.mixer.settings import MixerSettings
    from rtsep.notes.tap import Tap
    from rtsep.plugins.host import PluginHost
    from rtsep.plugins.spec import PluginSpec

_TICK_S = 0.05
_DEVICE_STOP_S = 1.5
_LOST_DEVICE_STOP_S = 0.3  # a dead server never answers; the whole end has to come within two seconds


class EngineProcess:
    """One run, from configuration to the last file closed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._hung = False
        self._lost = False
        self._handing_over = False
        self._song: SongBackend | None = None
        self._tap: Tap | None = None
        self._deferred: list[dict[str, Any]] = []
        self._parent = os.getppid()
        self._moved_at = -1
        self._still_ticks = 0
        self._still_since = 0.0

    def run(self) -> int:
        """Return the exit code. Sends ``ready``, then ``ended`` or ``error``."""
        first = self._wire.receive()
        if first is None or first["kind"] != "configure":
            return 1
        try:
            self._open(first)
        except RtsepError as error:
            self._report(error)
            return error.exit_code
        except Exception as error:  # whatever a driver or a model does must reach the person as a sentence
            self._report(EngineError(f"The engine could not start: {_sentence(error)}"), traceback.format_exc())
            return EngineError.exit_code
        error_seen: RtsepError | None = None
        try:
            self._listen()
            self._watch()
        except RtsepError as error:
            error_seen = error
        finally:
            self._close()
        if error_seen is None and self._recorder is not None and self._recorder.error is not None:
            error_seen = self._recorder.error
        if error_seen is not None:
            self._report(error_seen)
            return error_seen.exit_code
        self._wire.send("ended")
        return 0

    def abandon(self, code: int) -> None:
        """End now, leaving hung threads behind; all files are closed."""
        sys.stderr.flush()
        os._exit(code)

    # --- start and end ------------------------------------------------------------------------------------------------

    def _open(self, message: dict[str, Any]) -> None:
        from rtsep.audio.backends import open_backend
        from rtsep.engine.recorder import Recorder
        from rtsep.engine.shared import SharedBlock
        from rtsep.engine.stats import INDEX
        from rtsep.engine.worker import Worker
        from rtsep.inference.session import StreamingSession
        from rtsep.plugins.loader import preload

        config = message["config"]
        self._config = config
        self._index = INDEX
        self._shared = SharedBlock(message["shared"])
        session = StreamingSession(config.model, provider=config.provider, threads=config.threads)
        self._session = session
        for name, values in config.controls.items():
            session.set_control(name, values)
        settings, meters = self._shared.mixer(session.info.stems)
        settings.apply(mute=config.mute, solo=config.solo, gain=config.gain, pan=config.pan, master_db=config.master_db)
        settings.bypass, settings.limiter = config.bypass, config.limiter
        self._backend = open_backend(config.backend)
        if config.song is not None:
            self._put_song(config.song)
        self._recorder = None
        try:
            runner, self._plugins = self._new_runner(session, settings, meters, config.chains)
            if config.record:
                self._recorder = Recorder(
                    config.record,
                    self._backend.samplerate,
                    self._backend.output_channels,
                    drop=self._backend.paced,
                    realtime=config.realtime and self._backend.paced,
                )
            if config.tap:
                self._make_tap(session, runner)
            self._worker = Worker(
                self._backend,
                runner,
                config,
                self._shared.counters,
                self._shared.histogram,
                self._recorder,
                self._tap,
                self._shared.late,
            )
            if self._backend.paced:
                preload()  # imported while it plays, pedalboard would hold the interpreter, and the audio
            settle_interpreter()
            self._shared.counters[INDEX["memory_locked"]] = int(lock_memory() if config.realtime else False)
            if config.realtime and self._backend.paced:
                make_thread_realtime(SERVICE_PRIORITY)
            self._worker.start()
        except BaseException:
            self._close_device()
            if self._recorder is not None:
                self._recorder.close()
            if self._tap is not None:
                self._tap.unlink()
            raise
        self._wire.send(
            "ready",
            **self._facts(),
            samplerate=self._backend.samplerate,
            block=self._backend.block,
            pid=os.getpid(),
            tap=None if self._tap is None else str(self._tap.path),
            song=None if self._song is None else (self._song.duration_s, self._song.file_channels),
        )

    def _put_song(self, config: SongConfig) -> None:
        from rtsep.audio.song import SongBackend

        try:
            self._song = SongBackend(self._backend, config, self._shared.counters, self._index)
        except BaseException:
            self._close_device()
            raise
        self._backend = cast("Backend", self._song)

    def _new_runner(
        self,
        session: StreamingSession,
        settings: MixerSettings,
        meters: Meters | None,
        chains: Mapping[str, Sequence[PluginSpec]],
    ) -> tuple[ChainRunner, PluginHost]:
        """Main thread only: plugins load nowhere else."""
        from rtsep.chain import HopChain
        from rtsep.engine.runner import ChainRunner, choose_rate
        from rtsep.mixer.mixer import Mixer
        from rtsep.plugins.host import load_chains, make_racks

        backend, info = self._backend, session.info
        rate = choose_rate(backend.samplerate, info.samplerates)
        channels = min(backend.input_channels, backend.output_channels)
        mixer = Mixer(
            info.stems, info.channels, rate, output_samplerate=backend.samplerate, settings=settings, meters=meters
        )
        racks = make_racks(
            info.stems,
            info.channels,
            info.hop_samples,
            rate,
            output_channels=min(channels, 2) if info.channels == 1 else info.channels,
            samplerate=backend.samplerate,
            settings=settings,
        )
        place = self._shared.counters[self._index["plugin_at"] :][:2]
        plugins = load_chains(racks, info.stems, chains, live=backend.paced, place=place)
        chain = HopChain(session, mixer, racks)
        return ChainRunner(chain, backend.samplerate, rate, self._config.resampler, channels), plugins

    def _make_tap(self, session: StreamingSession, runner: ChainRunner) -> None:
        """Make the ring that others read the stems from, unless there is one that fits. EngineError."""
        from rtsep.notes.tap import SECONDS, Tap, TapLayout

        info, slots = session.info, max(8, round(SECONDS / runner.period_s))
        layout = TapLayout(len(info.stems), info.channels, info.hop_samples, slots)
        layout = replace(layout, mix_channels=runner.channels, mix_frames=runner.hop_device + 1)
        if session.notes is not None:
            note_stems, frames, pitches = session.notes["frame"].shape
            layout = replace(layout, note_stems=note_stems, frames=frames, pitches=pitches)
        if self._tap is not None:
            if self._tap.layout == layout:
                return
            self._tap.unlink()
        try:
            self._tap = Tap.create(layout)
        except OSError as error:
            raise EngineError(f"There is no memory to give the stems out: {error.strerror}.") from error

    def _give_out(self, on: bool) -> dict[str, Any]:
        """Begin or end to give the stems out, and return where; what a run gives out anyway stays."""
        try:
            if on:
                self._make_tap(self._session, self._worker.runner)
            self._worker.tap = self._tap if on or self._config.tap else None
        except EngineError as error:
            return {"type": type(error).__name__, "message": str(error)}
        return {"path": None if self._worker.tap is None else str(self._worker.tap.path)}

    def _facts(self) -> dict[str, Any]:
        """What depends on the model."""
        session, runner, plan = self._session, self._worker.runner, self._worker.plan
        assert plan is not None
        return {
            "info": session.info.to_json(),
            "path": str(session.path),
            "provider": session.provider,
            "provider_note": session.provider_note,
            "model_samplerate": runner.rate,
            "latency": plan.report,
            "stem_delay": runner.delay_in + runner.chain.latency_samples,
            "chains": {target: self._plugins.describe(target) for target in self._plugins.targets},
        }

    def _close(self) -> None:
        self._worker.stop(1.0)
        self._shared.unlink()  # a control process that was killed cannot
        if self._tap is not None:
            self._tap.unlink()
        self._close_device()
        self._update_counters()
        if self._recorder is not None:
            self._recorder.heard = self._backend.captured
            self._recorder.close()
            self._update_counters()

    def _close_device(self) -> None:
        if not self._backend.stop(_LOST_DEVICE_STOP_S if self._lost else _DEVICE_STOP_S):
            self._hung = True

    def _report(self, error: RtsepError, details: str = "") -> None:
        self._wire.send("error", type=type(error).__name__, message=str(error), details=details)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        def listen() -> None:
            while (message := self._wire.receive()) is not None:
                self._inbox.put(message)
            self._inbox.put(None)

        threading.Thread(target=listen, name="commands", daemon=True).start()
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._inbox.put({"kind": "stop"}))

    def _watch(self) -> None:
        while True:
            try:
                message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                pass
            else:
                if message is None or message["kind"] == "stop":
                    return
                self._obey(message)
            if os.getppid() != self._parent and hasattr(os, "fork"):
                return
            if self._tap is not None:
                self._tap.beat(time.monotonic_ns())
            self._update_counters()
            self._check_threads()
            self._watch_plugins()
            self._check_device()
            if self._backend.finished:
                return
            if self._worker.latency_changed.is_set() and self._worker.plan is not None:
                self._worker.latency_changed.clear()
                self._wire.send("latency", latency=self._worker.plan.report)

    def _obey(self, message: dict[str, Any]) -> None:
        if message["kind"] == "reset":
            self._worker.ask_reset()
        elif message["kind"] == "song" and self._song is not None:
            self._song.command(message["what"], message["value"])
        elif message["kind"] == "model":
            self._handing_over = True
            threading.Thread(target=self._change_model, args=(message,), name="handover", daemon=True).start()
        elif message["kind"] == "runner":
            message["answer"].put(self._make_successor(message["session"], message["settings"]))
        elif message["kind"] == "handed over":
            self._handing_over = False
            if message["gone"] is not None:
                message["gone"].close()
            while self._deferred:
                self._obey(self._deferred.pop(0))
        elif message["kind"] == "control":
            self._session.set_control(message["name"], message["values"])
        elif message["kind"] in ("plugins", "tap") and self._handing_over:
            self._deferred.append(message)  # the chains are being copied; the stems of which model, shows then
        elif message["kind"] == "tap":
            self._wire.send("tap", **self._give_out(message["on"]))
        elif message["kind"] == "plugins":
            self._wire.send("plugins", number=message["number"], **self._obey_plugins(message))
        elif message["kind"] == "inject":
            what, seconds = message["what"], message["seconds"]
            if what in ("worker", "both"):
                self._worker.injection.worker_s = seconds
            if what in ("filler", "both"):
                self._worker.injection.filler_s = seconds
            if what in ("stall", "vanish"):
                self._backend.inject(what, seconds)
            if what == "crash":
                os.abort()

    def _obey_plugins(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do one of `PluginHost`'s methods; return its result or its error, for the answer."""
        try:
            return {"result": getattr(self._plugins, message["what"])(*message["values"])}
        except RtsepError as error:
            return {"type": type(error).__name__, "message": str(error)}
        except Exception as error:  # whatever a plugin does while it loads
            return {"type": "PluginError", "message": f"The plugin failed: {_sentence(error)}"}

    def _watch_plugins(self) -> None:
        for news in self._plugins.watch():
            if "fault" in news:
                self._shared.counters[self._index["plugin_faults"]] += 1
            if news.get("hung"):
                self._worker.replace_thread()
            self._wire.send("plugin", news=news, chain=self._plugins.describe(news["target"]))

    def _change_model(self, message: dict[str, Any]) -> None:
        """Load another model, let it take over, and say how that went. A thread of its own; one at a time."""
        from rtsep.inference.session import StreamingSession

        session = None
        gone: PluginHost | None = None
        try:
            config, before = self._config, self._session
            session = StreamingSession(message["model"], provider=config.provider, threads=config.threads)
            check_successor(session.info, before.info, tapped=self._worker.tap is not None)
            for name, values in message["controls"].items():
                session.set_control(name, values)
            settings, meters = self._shared.mixer(session.info.stems)
            answer: queue.SimpleQueue[tuple[ChainRunner, PluginHost] | Exception] = queue.SimpleQueue()
            self._inbox.put({"kind": "runner", "session": session, "settings": settings, "answer": answer})
            made = answer.get()
            if isinstance(made, Exception):
                raise made
            runner, plugins = made
            gone = plugins
            self._worker.hand_over(runner)
            self._plugins, gone = plugins, self._plugins
            runner.chain.mixer.meters = meters
            self._session = session
            before.close()
            self._wire.send("changed", **self._facts())
        except Exception as error:  # whatever a model does must reach the person as a sentence
            if session is not None and session is not self._session:
                session.close()
            if not isinstance(error, RtsepError):
                error = EngineError(f"The model stays what it is: {_sentence(error)}")
            self._wire.send("unchanged", type=type(error).__name__, message=str(error))
        finally:
            self._inbox.put({"kind": "handed over", "gone": gone})

    def _make_successor(
        self, session: StreamingSession, settings: MixerSettings
    ) -> tuple[ChainRunner, PluginHost] | Exception:
        """Return a runner with copies of the plugins that play now, without those that failed; or why not."""
        try:
            return self._new_runner(session, settings, None, self._plugins.specs())
        except Exception as error:  # whatever a plugin does while it loads
            return error

    def _check_threads(self) -> None:
        error = self._worker.failure.error
        if error is None:
            return
        if isinstance(error, RtsepError):
            raise error
        raise EngineError(f"The engine stopped: {_sentence(error)}") from error

    def _check_device(self) -> None:
        """Raise DeviceLostError when the clock has not moved for too many looks.

        Looks are counted, not seconds: a process that was itself suspended must not blame the device.
        """
        device_error = getattr(self._backend, "error", None)
        if isinstance(device_error, RtsepError):
            raise device_error
        moved = self._backend.captured
        if moved != self._moved_at or not self._backend.paced:
            self._moved_at, self._still_ticks, self._still_since = moved, 0, time.monotonic()
            return
        self._still_ticks += 1
        waited = time.monotonic() - self._still_since
        if waited >= self._config.device_timeout_s and self._still_ticks >= 8:
            self._lost = True
            raise DeviceLostError(
                f"The device delivered nothing for {waited:.1f} s (after {moved / self._backend.samplerate:.1f} s of "
                "audio): unplugged, or its sound server ended. Check it with: rtsep devices"
            )

    def _update_counters(self) -> None:
        counters, index = self._shared.counters, self._index
        xruns = self._backend.xruns()
        for name in ("input_underflow", "input_overflow", "output_underflow", "output_overflow"):
            counters[index[name]] = getattr(xruns, name)
        counters[index["position"]] = self._backend.captured
        if self._recorder is not None:
            counters[index["record_frames"]] = self._recorder.frames
            counters[index["record_lost"]] = self._recorder.lost


def check_successor(info: ModelInfo, before: ModelInfo, *, tapped: bool) -> None:
    """UsageError when a model cannot take the place of another while that plays."""
    for what, new, old in (("stems", info.stems, before.stems), ("channels", info.channels, before.channels)):
        if new != old:
            raise UsageError(
                f"{info.name} cannot take over from {before.name} while it plays: it has {what} {_listed(new)}, "
                f"that one {_listed(old)}. Stop, and start with: rtsep run {info.name}"
            )
    if tapped:
        raise UsageError(
            "The model cannot be changed while notes or a take are written: their delay would change with it. End the "
            f"take, or stop and start with: rtsep run {info.name}"
        )


def _listed(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _sentence(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return f"{type(error).__name__}: {text}"


def main() -> None:
    """Take the pipes, run, and end without waiting for whoever hangs."""
    # Ctrl+C goes to the whole foreground group; only the control process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    process = EngineProcess(Wire(sys.stdin.buffer, events))
    code = 1
    try:
        code = process.run()
    except BaseException:
        traceback.print_exc()
    process.abandon(code)


if __name__ == "__main__":
    main()
