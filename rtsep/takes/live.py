"""Takes of a running engine, begun and ended while it plays. For the control process."""

from __future__ import annotations

import collections
import contextlib
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rtsep.errors import AudioFileError, EngineError, RtsepError

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.notes.live import LiveNotes
    from rtsep.notes.tap import Tap
    from rtsep.takes.files import TakeFiles

_LOOK_S = 0.02
_DRAIN_S, _CLOSE_S = 3.0, 20.0
_NAME = re.compile(r"take-(\d+)")


@dataclass(frozen=True)
class TakeState:
    """What is recorded now, and what was.

    Attributes
    ----------
    on : bool
    folder : Path or None
        Of the take that runs, or of the last one.
    since_s : float or None
        When it began, in seconds of the device's clock; None while none runs.
    error : str or None
        Why the last one ended early, or never began; None again when the next one begins.
    done : tuple of (Path, float)
        Takes that have ended, with their lengths in seconds.
    """

    on: bool = False
    folder: Path | None = None
    since_s: float | None = None
    error: str | None = None
    done: tuple[tuple[Path, float], ...] = ()


class LiveTakes:
    """Records an engine from one moment to another; context manager.

    Each take is a new folder, ``take-001``, ``take-002`` ..., with ``<stem>.wav`` for every stem before its fader,
    ``mix.wav``, and, while notes are written down, ``notes.jsonl`` and ``notes.mid``. Sample 0 of each and second 0 of
    the notes were captured at the same moment.

    Parameters
    ----------
    engine : Engine
        Started.
    folder : path
        Where the takes go; made with the first one.
    notes : LiveNotes, optional
        Whose notes are recorded, while they run.
    tell : callable, optional
        Gets a sentence when a take has ended, or could not be; from a thread of its own.

    Notes
    -----
    `start` and `stop` return at once; any thread may call them. A thread of the control process reads the stems from
    the engine's tap and others write the files, so that no disk can hold anything up. A take that cannot be written
    (a full disk, a folder that is not ours) ends, and what was written of it stays readable; the music goes on.
    The model cannot be changed while a take runs.
    """

    def __init__(
        self,
        engine: Engine,
        folder: str | Path = "takes",
        notes: LiveNotes | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._engine, self._notes, self._tell = engine, notes, tell or (lambda text: None)
        self._state = TakeState()
        self._wanted, self._closing = False, False
        self._asked: collections.deque[tuple[bool, int]] = collections.deque()
        """Begin or end, and at which frame."""
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    # --- what a person wants ------------------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        """Whether a take runs, or is about to; False again when it could not be."""
        return self._wanted

    @property
    def state(self) -> TakeState:
        """A snapshot."""
        return self._state

    def start(self) -> None:
        """Begin a take with what is captured now; nothing while one runs."""
        self._ask(True)

    def stop(self) -> None:
        """End the take with what was captured until now. Its files are closed when that has come out of the model."""
        self._ask(False)

    def close(self) -> None:
        """End the take, if one runs, and wait until its files are closed; more than once is fine."""
        self._ask(False)
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def __enter__(self) -> LiveTakes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, on: bool) -> None:
        with self._news:
            if on == self._wanted or self._closing:
                return
            self._wanted = on
            self._asked.append((on, self._engine.position_samples))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="takes", daemon=True)
                self._thread.start()
            self._news.notify()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._asked and not self._closing:
                    self._news.wait()
                if not self._asked:
                    return
                on, frame = self._asked.popleft()
            if not on:
                continue
            try:
                self._record(frame)
            except Exception as error:  # whatever it is must reach the person, and leave the button as it is
                self._give_up(_sentence(error))
            if not self._asked:
                with contextlib.suppress(RtsepError):
                    self._engine.close_tap()

    def _record(self, start: int) -> None:
        """One take, from its folder to the last file closed. RtsepError when it could not begin."""
        from rtsep.notes.tap import SECONDS, Tap

        engine, given_out = self._engine, self._engine.tapped
        tap = Tap(engine.open_tap(), readonly=True, mix=True)
        if not given_out:  # what is captured from here on can be had
            start = max(start, engine.position_samples)
        folder, since_s = self._new_folder(), start / engine.samplerate
        notes: LiveNotes | None = None
        try:
            files = self._files(folder, tap, start)
        except RtsepError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        try:
            with contextlib.suppress(EngineError):  # they have ended: a take without notes
                if self._notes is not None:
                    self._notes.begin_take(folder, since_s)
                    notes = self._notes
            self._state = replace(self._state, on=True, folder=folder, since_s=since_s, error=None)
            tap.rewind()
            began_s = (engine.position_samples - start) / engine.samplerate
            self._follow(tap, files)
        finally:
            files.close()
            self._state = replace(self._state, on=False, since_s=None)
        remarks = [] if notes is None else self._end_notes(notes, folder, since_s + files.seconds)
        if began_s > 0.9 * SECONDS:
            remarks.append(f"The disk took {began_s:.1f} s to make the files; the beginning is silent.")
        if tap.missed:
            remarks.append(f"{tap.missed} hops came too fast for this machine and are silent.")
        if files.lost:
            remarks.append(f"The disk was too slow for {files.lost} samples, which are silent.")
        self._state = replace(self._state, done=(*self._state.done, (folder, files.seconds)))
        if files.error is not None:
            self._give_up(str(files.error))
        elif remarks:
            self._state = replace(self._state, error=" ".join(remarks))
            self._tell(f"Note: {folder} is not whole. {self._state.error}")
        else:
            self._tell(f"Take     {folder}  {files.seconds:.1f} s")

    def _follow(self, tap: Tap, files: TakeFiles) -> None:
        """Write what comes until the take is over, a file cannot be written, or the engine has ended."""
        until = math.inf
        while files.error is None:
            if until == math.inf and self._asked:
                files.end_at(self._asked.popleft()[1])
                until = time.monotonic() + _DRAIN_S
            running = self._engine.running
            while (hop := tap.read()) is not None:
                files.put(hop)
            if until < math.inf and (files.complete or time.monotonic() > until):
                return
            if not running:
                with self._news:
                    self._wanted = False
                    self._asked.clear()
                return
            time.sleep(_LOOK_S)

    def _give_up(self, why: str) -> None:
        """Say once why nothing is recorded, and let the button go off."""
        with self._news:
            self._wanted = False
            self._asked.clear()
        self._state = replace(self._state, on=False, since_s=None, error=why)
        self._tell(f"Note: nothing is recorded, the sound goes on. {why}")

    def _end_notes(self, notes: LiveNotes, folder: Path, end_s: float) -> list[str]:
        """End the log of notes and make a MIDI file of it; return what is to be said about that."""
        from rtsep.notes.log import recover
        from rtsep.notes.take import LOG_NAME, MIDI_NAME

        why: str | None
        try:
            why = notes.end_take(end_s)
        except EngineError as error:
            why = str(error)
        try:
            recover(folder / LOG_NAME, folder / MIDI_NAME)
        except RtsepError as error:
            why = why or str(error)
        return [] if why is None else [f"Notes are missing: {why}"]

    def _files(self, folder: Path, tap: Tap, start: int) -> TakeFiles:
        from rtsep.takes.files import TakeFiles

        engine = self._engine
        return TakeFiles(
            folder,
            engine.info,
            engine.model_samplerate,
            engine.samplerate,
            engine.stem_delay,
            mix_channels=tap.layout.mix_channels,
            start=start,
        )

    def _new_folder(self) -> Path:
        """Make the folder of the next take. AudioFileError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            numbers = [int(found[1]) for path in self.folder.iterdir() if (found := _NAME.fullmatch(path.name))]
            for number in range(max(numbers, default=0) + 1, 1 << 20):
                folder = self.folder / f"take-{number:03d}"
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    return folder
        except OSError as error:
            raise AudioFileError(
                f"No folder for a take can be made in {self.folder}: {error.strerror}. "
                "Choose another with --takes FOLDER."
            ) from error
        raise AudioFileError(f"{self.folder} is full of takes. Choose another with --takes FOLDER.")


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RtsepError) else f"{type(error).__name__}: {error}"
