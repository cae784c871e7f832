"""Scores of a running engine: one that follows its clock, and one that somebody plays."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rtsep.errors import RtsepError
from rtsep.query.midi_in import MidiInput, PlayedNote
from rtsep.query.score import Score, ScoreReader

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine

_EVERY_S = 0.004


class LiveScore:
    """Sets the score of an engine's model as its device captures; a context manager.

    The score begins with the engine's clock. It is set from outside the audio process: a change reaches the hop it is
    for or one beside it, within 20 ms where the device's blocks are no longer than 10 ms; longer blocks add their
    length. ``rtsep separate`` sets every hop exactly.

    Parameters
    ----------
    engine : Engine
        Started.
    score : Score

    Raises
    ------
    UsageError
        The model reads no score.
    """

    def __init__(self, engine: Engine, score: Score) -> None:
        self._engine = engine
        report = engine.latency()
        # What is set now is heard in the next hop, which will be full half a hop from now in the mean; the middle of
        # its stems lies half a hop and the model's latency before that.
        self._behind_s = (report["model"].ms + report["resampler in"].ms) / 1e3
        self._reader = ScoreReader(score, engine.info, engine.set_control)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="score", daemon=True)

    def __enter__(self) -> LiveScore:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while not self._stopping.wait(_EVERY_S):
                self._reader.at(self._engine.position_samples / self._engine.samplerate - self._behind_s)
        except RtsepError:
            return  # the engine has ended, and whoever waits for it says why


class PlayedScore:
    """Notes from a MIDI input as the score of an engine's model; a context manager.

    A key that goes down is heeded from the next hop on.

    Parameters
    ----------
    engine : Engine
        Started.
    port : str
        As `MidiInput`.

    Raises
    ------
    UsageError
        The model reads no score.
    DeviceError
        The port cannot be opened.
    """

    def __init__(self, engine: Engine, port: str) -> None:
        self._reader = ScoreReader(Score([]), engine.info, engine.set_control)
        self._down: dict[int, None] = {}
        self._input = MidiInput(port, listener=self._play)
        self.name = self._input.name

    def __enter__(self) -> PlayedScore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._input.close()

    def _play(self, note: PlayedNote) -> None:
        if note.on:
            self._down[note.pitch] = None
        else:
            self._down.pop(note.pitch, None)
        with contextlib.suppress(RtsepError):  # the engine has ended, and whoever waits for it says why
            self._reader.set(self._down)
