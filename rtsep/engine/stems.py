"""What an engine gives out of its stems, from its control side."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

from rtsep.engine.wire import error_of
from rtsep.errors import EngineError

_ANSWER_S = 20.0
"""A change of the model that is going on comes to its end first."""


class StemControls:
    """What `rtsep.engine.Engine` can do with its stems; not for use by itself. Any thread of the control process."""

    _ready: dict[str, Any] | None
    _tap_opened: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self._tap_answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._tap_asking = threading.Lock()

    def _command(self, kind: str, **values: Any) -> None:
        raise NotImplementedError

    def _started(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def tap_path(self) -> Path | None:
        """File of the `rtsep.notes.tap.Tap`, with the setting ``tap=True``. UsageError before `start`."""
        path = self._started()["tap"]
        return None if path is None else Path(path)

    @property
    def tapped(self) -> bool:
        """Whether stems are given out now: then the model stays what it is."""
        return self._tap_opened is not None or self.tap_path is not None

    @property
    def stem_delay(self) -> int:
        """How much later a sound lies in the tapped stems than the tap's numbers say, in model samples."""
        return int(self._started()["stem_delay"])

    def open_tap(self) -> Path:
        """Give out the stems and the mix of every hop until `close_tap`; where the setting ``tap`` does so anyway,
        that one is returned.

        Returns
        -------
        Path
            Of the `rtsep.notes.tap.Tap`.

        Raises
        ------
        EngineError
            The engine has ended, does not answer, or has no memory for it.
        UsageError
            The engine is not started.

        Notes
        -----
        Waits for the engine's answer, some hundredths of a second; longer while the model is being changed. Everything
        is allocated by a thread that is not in the way of the audio, which then copies each hop.
        """
        path = self.tap_path
        if path is None:
            path = self._tap_opened = Path(self._ask_for_tap(True)["path"])
        return path

    def close_tap(self) -> None:
        """End what `open_tap` began; readers keep what they have mapped. EngineError as there."""
        if self._tap_opened is not None:
            self._tap_opened = None
            self._ask_for_tap(False)

    def _ask_for_tap(self, on: bool) -> dict[str, Any]:
        with self._tap_asking:
            while not self._tap_answers.empty():
                self._tap_answers.get()
            self._command("tap", on=on)
            try:
                answer = self._tap_answers.get(timeout=_ANSWER_S)
            except queue.Empty:
                raise EngineError(f"The engine did not give its stems out within {_ANSWER_S:.0f} s.") from None
        if "type" in answer:
            raise error_of(answer)
        return answer

    def _unlink_taps(self) -> None:
        """Take the names away, also where the engine process was killed."""
        for path in (self._ready["tap"] if self._ready is not None else None, self._tap_opened):
            if path is not None:
                Path(path).unlink(missing_ok=True)
