"""What the engine process gives out: every hop's stems, and the mix made of them, with their place in time.

A ring of slots in memory that both processes map, one slot a hop. The engine writes, never waits and never looks at the
reader; a reader that falls behind by more than the ring notices and says how much it missed. A plain file mapped by
both, as in `rtsep.engine.shared`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import EngineError
from rtsep.mapped import make_mapped_file, map_file

Audio = NDArray[np.float32]

SECONDS = 2.0
"""What the ring holds; a reader may fall behind by a little less."""

_MAGIC = 0x7274_7365_7001
_HEAD = (
    "magic", "slots", "stems", "channels", "hop", "note_stems", "frames", "pitches", "written", "beat_ns",
    "mix_channels", "mix_frames",
)  # fmt: skip
_META = ("number", "epoch", "hop", "base", "taken_ns", "audible", "mix_at", "mix_count")
_KINDS = 3  # onset, frame, velocity
_ALIGN = 64


@dataclass(frozen=True)
class TapLayout:
    """Sizes of a tap.

    Parameters
    ----------
    stems, channels, hop : int
        Of the model.
    slots : int
        Hops that the ring holds.
    note_stems, frames, pitches : int
        Of the model's own ``notes/*`` outputs; 0 where it has none.
    mix_channels, mix_frames : int
        Of the mix that goes with a hop, at the device's rate; 0 where it is not given out.
    """

    stems: int
    channels: int
    hop: int
    slots: int
    note_stems: int = 0
    frames: int = 0
    pitches: int = 0
    mix_channels: int = 0
    mix_frames: int = 0

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        floats = self.stems * self.channels * self.hop + _KINDS * self.note_stems * self.frames * self.pitches
        floats += self.mix_channels * self.mix_frames
        return -(-(8 * len(_META) + 4 * floats) // _ALIGN) * _ALIGN

    @property
    def size(self) -> int:
        """Bytes of the whole tap."""
        return -(-8 * len(_HEAD) // _ALIGN) * _ALIGN + self.slots * self.slot_bytes


@dataclass(frozen=True)
class TapHop:
    """One hop as the reader gets it.

    Attributes
    ----------
    epoch : int
        Counts the model's restarts; hop numbers begin anew with each.
    hop : int
        Number of the hop since the restart: ``stems`` are the chain's output samples from ``hop * hop_samples`` on.
    base : int
        Device frame that the chain's first input sample of this epoch was captured at.
    taken_ns : int
        ``time.monotonic_ns()`` when the worker took the hop's input.
    audible : int
        Bit `s` is set while stem `s` is heard: not muted, and soloed if any is.
    stems : array [S, C, hop]
        Before the faders.
    notes : array [3, S', N, P] or None
        The model's own onset, frame and velocity.
    mix : array [C, T] or None
        What the chain gave for this hop, at the device's rate, after faders and plugins; where it was asked for.
    mix_at : int
        Device frame that the first sample of `mix` was captured at.
    """

    epoch: int
    hop: int
    base: int
    taken_ns: int
    audible: int
    stems: Audio
    notes: Audio | None
    mix: Audio | None = None
    mix_at: int = 0


class Tap:
    """The mapped ring.

    Parameters
    ----------
    path : path
        Of an existing tap. Make one with `create`.
    readonly : bool
        For a reader.
    mix : bool
        Whether `read` copies the mix, too.

    Raises
    ------
    EngineError
        The file is no tap.

    Notes
    -----
    One writer; each reader has a `Tap` of its own. `put` is real-time safe: two copies and no lock. It relies on stores
    being seen in the order they are made; the slot's number is written before and after, so that a torn slot is noticed
    where they are not.
    """

    def __init__(self, path: str | os.PathLike[str], readonly: bool = False, mix: bool = False) -> None:
        self.path = Path(path)
        self._with_mix = mix
        self._map = map_file(self.path, readonly)
        self._head: NDArray[np.int64] = np.frombuffer(self._map, np.int64, len(_HEAD))
        head = dict(zip(_HEAD, self._head.tolist(), strict=True))
        if head["magic"] != _MAGIC:
            raise EngineError(f"{self.path} is no tap of rtsep's engine.")
        self.layout = layout = TapLayout(
            head["stems"],
            head["channels"],
            head["hop"],
            head["slots"],
            head["note_stems"],
            head["frames"],
            head["pitches"],
            head["mix_channels"],
            head["mix_frames"],
        )
        if len(self._map) < layout.size:
            raise EngineError(f"{self.path} is shorter than its header says.")
        first = layout.size - layout.slots * layout.slot_bytes
        shape = (layout.stems, layout.channels, layout.hop)
        notes = (_KINDS, layout.note_stems, layout.frames, layout.pitches)
        self._meta: list[NDArray[np.int64]] = []
        self._stems: list[Audio] = []
        self._notes: list[Audio] = []
        self._mix: list[Audio] = []
        mixed = (layout.mix_channels, layout.mix_frames)
        for slot in range(layout.slots):
            at = first + slot * layout.slot_bytes
            self._meta.append(np.frombuffer(self._map, np.int64, len(_META), at))
            at += 8 * len(_META)
            count = int(np.prod(shape))
            self._stems.append(np.frombuffer(self._map, np.float32, count, at).reshape(shape))
            at += 4 * count
            self._notes.append(np.frombuffer(self._map, np.float32, int(np.prod(notes)), at).reshape(notes))
            at += 4 * int(np.prod(notes))
            self._mix.append(np.frombuffer(self._map, np.float32, int(np.prod(mixed)), at).reshape(mixed))
        self.position = self.written
        """Of the reader: hops read or missed since the tap was made."""
        self.missed = 0
        """Hops the reader came too late for."""

    @classmethod
    def create(cls, layout: TapLayout) -> Tap:
        """Make a tap in memory (a file where there is no /dev/shm); `unlink` removes its name."""
        path = make_mapped_file("rtsep-tap-", layout.size)
        values = {**vars(layout), "magic": _MAGIC}
        with path.open("r+b") as file:
            file.write(np.array([values.get(key, 0) for key in _HEAD], np.int64).tobytes())
        tap = cls(path)
        np.frombuffer(tap._map, np.uint8)[4096::4096] = 0  # the thread that writes hops finds every page there
        return tap

    def unlink(self) -> None:
        """Remove the name; mappings stay usable."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @property
    def written(self) -> int:
        """Hops written since the tap was made."""
        return int(self._head[8])

    @property
    def beat_ns(self) -> int:
        """``time.monotonic_ns()`` of the last sign of life of the engine; 0 before the first."""
        return int(self._head[9])

    def beat(self, now_ns: int) -> None:
        """Say that the engine lives. Any thread of the engine."""
        self._head[9] = now_ns

    # --- writer -------------------------------------------------------------------------------------------------------

    def put(
        self,
        epoch: int,
        hop: int,
        base: int,
        taken_ns: int,
        audible: int,
        stems: Audio,
        mix: Audio | None = None,
        mix_at: int = 0,
    ) -> NDArray[np.float32]:
        """Write one hop; return where its notes ``[3, S', N, P]`` may be written before `publish`."""
        slot = self.written % self.layout.slots
        meta = self._meta[slot]
        meta[0] = -1
        np.copyto(self._stems[slot], stems)
        meta[1], meta[2], meta[3], meta[4], meta[5] = epoch, hop, base, taken_ns, audible
        meta[6], meta[7] = mix_at, 0
        if mix is not None and self.layout.mix_channels:
            count = mix.shape[1]
            np.copyto(self._mix[slot][:, :count], mix)
            meta[7] = count
        return self._notes[slot]

    def publish(self) -> None:
        """Give the hop just put to the reader."""
        number = self.written
        self._meta[number % self.layout.slots][0] = number
        self._head[9] = self._meta[number % self.layout.slots][4]
        self._head[8] = number + 1

    # --- reader -------------------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Let the next `read` give the oldest hop that can be had in time."""
        slots = self.layout.slots
        self.position = max(0, self.written - slots + max(2, slots // 16))

    def read(self) -> TapHop | None:
        """Return the next hop, copied, or None when there is none yet; `missed` counts what was overwritten."""
        while True:
            written, slots = self.written, self.layout.slots
            if self.position >= written:
                return None
            if written - self.position >= slots:  # the slot after the newest may be in the making
                skip = written - self.position - slots + 1
                self.missed += skip
                self.position += skip
            slot, number = self.position % slots, self.position
            meta = self._meta[slot]
            values = meta.tolist()
            stems = self._stems[slot].copy()
            notes = self._notes[slot].copy() if self.layout.note_stems else None
            mix = self._mix[slot][:, : values[7]].copy() if self._with_mix else None
            if values[0] == number and int(meta[0]) == number:
                self.position += 1
                _, epoch, hop, base, taken_ns, audible, mix_at, _ = values
                return TapHop(epoch, hop, base, taken_ns, audible, stems, notes, mix, mix_at)
            self.missed += 1
            self.position += 1
