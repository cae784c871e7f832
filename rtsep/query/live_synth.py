"""An enrolled sound under the fingers: notes from a MIDI input, played at once."""

from __future__ import annotations

import collections
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from rtsep.audio.backends import open_backend
from rtsep.audio.resampler import StreamResampler
from rtsep.engine.realtime import WORKER_PRIORITY, make_thread_realtime
from rtsep.query.graphs import LOWEST_MIDI, SynthGraph
from rtsep.query.midi_in import PlayedNote
from rtsep.query.synth import HIGHEST_MIDI, Synthesizer

if TYPE_CHECKING:
    from rtsep.audio.backends import BackendConfig

_SPARE_S = 0.006  # queued beyond the next callback: what a thread may be held up for
_LOOK_S = 0.001


class LiveSynth:
    """Plays notes with an enrolled sound on an audio device; context manager.

    Parameters
    ----------
    graph : SynthGraph
    config : BackendConfig
        The device; its input is not listened to.
    gain_db : float

    Attributes
    ----------
    latency_ms : float
        From `play` to the device, at most; valid after `start`. What lies outside the stream comes on top.
    underruns : int
        How often the device found nothing to play.
    error : BaseException or None
        What ended it.

    Notes
    -----
    Hops are computed in a thread of their own, at real-time priority where that is allowed. Notes outside the
    synthesiser's range are counted in `left_out` and not played.
    """

    def __init__(self, graph: SynthGraph, config: BackendConfig, gain_db: float = 0.0) -> None:
        self._synth = Synthesizer(graph)
        self._gain = 10 ** (gain_db / 20)
        self._backend = open_backend(config)
        self._resampler = StreamResampler(self._synth.samplerate, self._backend.samplerate, 1, "LQ")
        self._played: collections.deque[PlayedNote] = collections.deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="synth", daemon=True)
        self.latency_ms = 0.0
        self.underruns = self.notes = self.left_out = 0
        self.error: BaseException | None = None

    def start(self) -> None:
        """Start the device. DeviceError."""
        backend = self._backend
        if backend.preset_clock:
            backend.arm_output(0)
        backend.start()
        hop = self._synth.hop_samples * backend.samplerate / self._synth.samplerate
        # A note waits for the hop that begins, then for what is queued, then for the rise of its first frame.
        queued = self._target + hop
        delay = self._resampler.delay_samples
        self.latency_ms = 1000 * (2 * hop + queued + delay) / backend.samplerate
        self._thread.start()

    def stop(self) -> None:
        """Stop the device. More than once is fine."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        self._backend.stop(1.0)

    def __enter__(self) -> LiveSynth:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """The device plays."""
        return self._thread.is_alive() and not self._backend.finished

    @property
    def samplerate(self) -> int:
        """Of the device, in hertz."""
        return self._backend.samplerate

    @property
    def voices(self) -> int:
        """Notes that sound or fade out."""
        return self._synth.voices

    def play(self, note: PlayedNote) -> None:
        """Begin or end a note with the next hop. Any thread; returns at once."""
        self._played.append(note)

    # --- worker -------------------------------------------------------------------------------------------------------

    @property
    def _target(self) -> int:
        """Frames that are kept queued."""
        return 2 * max(self._backend.block, 1) + round(_SPARE_S * self._backend.samplerate)

    def _work(self) -> None:
        make_thread_realtime(WORKER_PRIORITY)
        backend = self._backend
        scratch = np.zeros((4096, backend.input_channels), np.float32)
        began = False
        try:
            while not self._stop.is_set() and not backend.finished:
                while backend.readable:
                    backend.read(scratch[: min(backend.readable, len(scratch))])
                if not backend.input_active:
                    backend.rearm_input()
                if not backend.output_active:
                    self.underruns += began
                    backend.arm_output(self._target)
                began = True
                while backend.output_fill < self._target and not backend.finished:
                    self._hop()
                time.sleep(_LOOK_S)
        except BaseException as error:
            self.error = error

    def _hop(self) -> None:
        synth = self._synth
        while self._played:
            note = self._played.popleft()
            if not LOWEST_MIDI <= note.pitch <= HIGHEST_MIDI:
                self.left_out += note.on
            elif note.on:
                self.notes += 1
                synth.note_on(note.pitch, note.velocity)
            else:
                synth.note_off(note.pitch)
        audio = self._resampler.process(self._gain * synth.step()[None])[0]  # [T]
        np.clip(audio, -1.0, 1.0, out=audio)
        frames = np.repeat(audio[:, None], self._backend.output_channels, axis=1)
        self._backend.write(np.ascontiguousarray(frames, np.float32))
