"""One causal trunk, one read-out per position of the latency dial: polyphonic, monophonic and drums.

Pitched kinds keep an axis of semitones throughout: harmonics are brought to their fundamental by shifting the
log-frequency axis (Bittner et al., ICASSP 2022, stack them in this way), small convolutions look at neighbours in time
and pitch, and one GRU, its weights shared by all pitches, remembers each. Drums flatten the bands into one GRU.

A read-out of the dial's position d sees the trunk up to the present and speaks of the frame ``lookahead[d]`` frames
ago; nothing else delays it. Axes: B batch, C channels, N frames, P pitches or drums, D positions of the dial.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from models.data.clips import DRUM_NOTES, SAMPLERATE
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.conv import CausalConv2d
from models.streaming.rnn import StreamingGRU
from models.transcriber.features import LogFrequency

KINDS = ("polyphonic", "monophonic", "drums")
DIAL = ("tight", "normal", "quality")
HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7, 8)
OCTAVES = (-24, -19, -12, 0, 12, 19, 24)  # semitones to notes that share many partials
HOP = 160
LARGEST_BEND = 2.0  # semitones between a note and its momentary pitch
VOICED = 0.5  # frame posterior from which the monophonic kind gives a pitch
BEFORE = 2  # frames before the one in question that a read-out still sees
RARE = -4.0  # first bias of the outputs: notes are rare


@dataclass(frozen=True)
class TranscriberConfig:
    """Sizes.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    lowest_midi, highest_midi : int
        P of the pitched kinds.
    channels, hidden, readout, head : int
        Of the trunk's convolutions, its GRU (per pitch; of all bands together for drums), its output, and inside
        the read-outs.
    long, short : int
        Windows in samples.
    lookahead : tuple of int
        Frames, for each position of the dial.
    """

    kind: str = "polyphonic"
    lowest_midi: int = 21
    highest_midi: int = 108
    channels: int = 24
    hidden: int = 24
    readout: int = 16
    head: int = 16
    long: int = 4096
    short: int = 1024
    lookahead: tuple[int, ...] = (3, 6, 14)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"[model] kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if len(self.lookahead) != len(DIAL) or sorted(self.lookahead) != list(self.lookahead):
            raise ValueError(f"[model] lookahead must be {len(DIAL)} ascending numbers, got {list(self.lookahead)}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TranscriberConfig:
        """Build from plain values; unknown keys raise ``TypeError``."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise TypeError(f"[model] has unknown keys {unknown}; known are {sorted(known)}.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def midi_notes(self) -> tuple[int, ...]:
        """MIDI numbers along P."""
        if self.kind == "drums":
            return DRUM_NOTES
        return tuple(range(self.lowest_midi, self.highest_midi + 1))


class Block(StreamingModule):
    """Causal convolution, batch normalisation and ReLU, around which the input is added."""

    def __init__(self, channels: int, bins: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = CausalConv2d(channels, channels, bins, (3, 3), dilation=(dilation, 1), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """``[B, C, N, P]`` to the same."""
        y, after = self.conv(x, None if state is None else substate(state, "conv"))
        return x + torch.relu(self.norm(y)), prefixed("conv", after)


class Octaves(nn.Module):
    """Let every pitch know of those that share its partials, and of the frame as a whole."""

    def __init__(self, channels: int, narrow: int = 8) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, narrow, 1)
        self.mix = nn.Conv2d(channels + narrow * len(OCTAVES), channels, 1, bias=False)
        self.whole = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, N, P]`` to the same."""
        pitches = x.shape[-1]
        small = nn.functional.pad(torch.relu(self.narrow(x)), (-OCTAVES[0], OCTAVES[-1]))
        shifted = [small[..., by - OCTAVES[0] : by - OCTAVES[0] + pitches] for by in OCTAVES]
        whole = self.whole(x.mean(-1).transpose(1, 2)).transpose(1, 2).unsqueeze(-1)  # [B, C, N, 1]
        return x + torch.relu(self.norm(self.mix(torch.cat([x, *shifted], dim=1)) + whole))


class PitchTrunk(StreamingModule):
    """Levels ``[B, 2, N, F]`` to what is known of each pitch ``[B, readout, N, P]``."""

    per_semitone = 3
    semitones = 99  # up to 8 kHz

    def __init__(self, config: TranscriberConfig) -> None:
        super().__init__()
        pitches, channels = len(config.midi_notes), config.channels
        self.pitches, self.hidden = pitches, config.hidden
        shifts = [round(12 * self.per_semitone * math.log2(h)) for h in HARMONICS]
        self.shifts, self.below = shifts, -min(shifts)
        self.enter = CausalConv2d(
            2 * len(shifts), channels, pitches * self.per_semitone, (3, 3), stride=self.per_semitone, bias=False
        )
        # Output p is for the three bins of semitone p; padding would begin one bin too low.
        self.enter.conv.padding = (0, 0)
        self.enter_norm = nn.BatchNorm2d(channels)
        self.place = nn.Parameter(torch.zeros(channels, 1, pitches))
        self.first, self.second = Block(channels, pitches), Block(channels, pitches, dilation=2)
        self.octaves = Octaves(channels)
        self.memory = SharedGRU(channels, config.hidden, pitches)
        self.leave = nn.Conv2d(channels + config.hidden, config.readout, 1)

    def stacked(self, levels: Tensor) -> Tensor:
        """Harmonics of each bin, side by side as channels: ``[B, 2, N, F]`` to ``[B, 18, N, 3 P]``."""
        count = self.pitches * self.per_semitone
        above = self.below + max(self.shifts) + count - levels.shape[-1] - self.below
        padded = nn.functional.pad(levels, (self.below, max(0, above)))
        return torch.cat([padded[..., self.below + s : self.below + s + count] for s in self.shifts], dim=1)

    def forward(self, levels: Tensor, state: State) -> tuple[Tensor, State]:
        """Run whole frames."""
        after: State = {}
        y, part = self.enter(self.stacked(levels), substate(state, "enter"))
        after |= prefixed("enter", part)
        y = torch.relu(self.enter_norm(y) + self.place)
        y, part = self.first(y, substate(state, "first"))
        after |= prefixed("first", part)
        y = self.octaves(y)
        y, part = self.second(y, substate(state, "second"))
        after |= prefixed("second", part)
        remembered, part = self.memory(y, substate(state, "memory"))
        after |= prefixed("memory", part)
        return torch.relu(self.leave(torch.cat([y, remembered], dim=1))), after


class SharedGRU(StreamingModule):
    """One GRU for all pitches: ``[B, C, N, P]`` to ``[B, H, N, P]``; state ``hidden`` ``[B, P, H]``."""

    def __init__(self, channels: int, hidden: int, pitches: int) -> None:
        super().__init__()
        self.hidden, self.pitches = hidden, pitches
        self.rnn = nn.GRU(channels, hidden, batch_first=True)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.pitches, self.hidden)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run whole frames."""
        state = self.checked_state(state, x.shape[0])
        batch, channels, frames, pitches = x.shape
        lines = x.permute(0, 3, 2, 1).reshape(-1, frames, channels)  # [B P, N, C]
        before = state["hidden"].reshape(1, -1, self.hidden)  # [1, B P, H]
        y, hidden = self.rnn(lines, before)
        y = y.reshape(batch, pitches, frames, self.hidden).permute(0, 3, 2, 1)  # [B, H, N, P]
        return y, {"hidden": hidden.reshape(batch, pitches, self.hidden)}


class DrumTrunk(StreamingModule):
    """Levels ``[B, 2, N, F]`` to what is known of each drum ``[B, readout, N, 6]``."""

    per_semitone = 1
    semitones = 96

    def __init__(self, config: TranscriberConfig) -> None:
        super().__init__()
        channels, drums = config.channels, len(config.midi_notes)
        self.drums, self.readout = drums, config.readout
        self.enter = CausalConv2d(2, channels, self.semitones, (3, 3), stride=3, bias=False)
        self.enter_norm = nn.BatchNorm2d(channels)
        self.down = CausalConv2d(channels, 2 * channels, self.enter.output_bins, (3, 3), stride=2, bias=False)
        self.down_norm = nn.BatchNorm2d(2 * channels)
        self.flat = nn.Linear(2 * channels * self.down.output_bins, config.hidden)
        self.memory = StreamingGRU(config.hidden, config.hidden)
        self.leave = nn.Linear(2 * config.hidden, config.readout * drums)

    def forward(self, levels: Tensor, state: State) -> tuple[Tensor, State]:
        """Run whole frames."""
        after: State = {}
        y, part = self.enter(levels, substate(state, "enter"))
        after |= prefixed("enter", part)
        y, part = self.down(torch.relu(self.enter_norm(y)), substate(state, "down"))
        after |= prefixed("down", part)
        y = torch.relu(self.down_norm(y)).transpose(1, 2).flatten(2)  # [B, N, C F]
        y = torch.relu(self.flat(y))
        remembered, part = self.memory(y, substate(state, "memory"))
        after |= prefixed("memory", part)
        y = torch.relu(self.leave(torch.cat([y, remembered], dim=-1)))  # [B, N, readout 6]
        return y.unflatten(-1, (self.readout, self.drums)).transpose(1, 2), after


class ReadOut(StreamingModule):
    """One position of the dial: looks at the frames from a little before the one it speaks of until now."""

    def __init__(self, config: TranscriberConfig, lookahead: int, outputs: int) -> None:
        super().__init__()
        kernel = lookahead + BEFORE + 1
        self.look = CausalConv2d(config.readout, config.head, len(config.midi_notes), (kernel, 1))
        with torch.no_grad():
            # Begin with what is near the frame in question; with all frames alike, the far position of the dial was
            # seen to learn onsets 30 ms early first.
            lag = torch.arange(kernel - 1, -1, -1)
            near = (lag - lookahead).abs() <= 2
            self.look.conv.weight *= torch.where(near, 1.5, 0.4)[None, None, :, None]
        self.speak = nn.Conv2d(config.head, outputs, 1)
        nn.init.constant_(self.speak.bias[:2], RARE)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``[B, readout, N, P]`` to logits ``[B, outputs, N, P]``."""
        y, after = self.look(x, substate(state, "look"))
        return self.speak(torch.relu(y)), prefixed("look", after)


class StreamingTranscriber(StreamingModule):
    """Audio to posteriors of notes.

    Parameters
    ----------
    config : TranscriberConfig

    Attributes
    ----------
    hop_samples, samplerate : int
    midi_notes : tuple of int
        Along P.
    latencies : tuple of int
        Samples, for each position of the dial: frame f, which covers ``[f, f + 1)`` hops, is given out by the step
        whose input ends at ``(f + 1) * hop + latency``.
    """

    def __init__(self, config: TranscriberConfig) -> None:
        super().__init__()
        self.config = config
        self.hop_samples, self.samplerate, self.channels = HOP, SAMPLERATE, 1
        self.midi_notes = config.midi_notes
        self.latencies = tuple(HOP * frames for frames in config.lookahead)
        trunk = DrumTrunk if config.kind == "drums" else PitchTrunk
        lowest = 24 if config.kind == "drums" else config.lowest_midi
        self.features = LogFrequency(
            SAMPLERATE, HOP, config.long, config.short, lowest, trunk.semitones, trunk.per_semitone
        )
        self.trunk = trunk(config)
        self.pitched = config.kind == "monophonic"
        outputs = 4 if self.pitched else 3
        self.dial = nn.ModuleList(ReadOut(config, frames, outputs) for frames in config.lookahead)

    def logits(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of onset, frame and velocity, and for the monophonic kind the bend, of audio ``[B, 1, T]``.

        Returns
        -------
        logits : Tensor
            ``[B, D, outputs, N, P]``.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        levels, part = self.features(audio, substate(state, "features"))
        logits, after = self._logits_of(levels, state)
        return logits, prefixed("features", part) | after

    def training_logits(self, audio: Tensor, bfloat16: bool) -> Tensor:
        """Logits of :meth:`logits`, from a fresh state, features in full and the rest in mixed precision if wanted."""
        state = self.initial_state(audio.shape[0])
        levels, _ = self.features(audio, substate(state, "features"))
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=bfloat16):
            logits, _ = self._logits_of(levels, state)
        return logits.float()

    def _logits_of(self, levels: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of levels ``[B, 2, N, F]``, and the state without the features'."""
        known, part = self.trunk(levels, substate(state, "trunk"))
        after = prefixed("trunk", part)
        said = []
        for index, readout in enumerate(self.dial):
            logits, part = readout(known, substate(state, f"dial.{index}"))
            after |= prefixed(f"dial.{index}", part)
            said.append(logits)
        return torch.stack(said, dim=1), after

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[dict[str, Tensor], State]:
        """Transcribe whole hops.

        Parameters
        ----------
        audio : Tensor
            ``[B, 1, T]`` at 16 kHz, T a multiple of the hop.

        Returns
        -------
        notes : dict
            ``onset``, ``frame``, ``velocity`` ``[B, D, N, P]`` in 0..1; for the monophonic kind ``pitch``
            ``[B, D, N]``, MIDI pitch where a note sounds and 0 elsewhere.
        state : dict
        """
        logits, after = self.logits(audio, state)
        posteriors = torch.sigmoid(logits[:, :, :3])
        onset, frame, velocity = (posteriors[:, :, index] for index in range(3))
        notes = {"onset": onset, "frame": frame, "velocity": velocity}
        if self.pitched:
            notes["pitch"] = self._pitch(frame, logits[:, :, 3])
        return notes, after

    def _pitch(self, frame: Tensor, bend: Tensor) -> Tensor:
        best, which = frame.max(dim=-1, keepdim=True)  # [B, D, N, 1]
        bent = LARGEST_BEND * torch.tanh(torch.gather(bend, -1, which))
        pitch = which.to(frame.dtype) + float(self.midi_notes[0]) + bent
        return torch.where(best >= VOICED, pitch, torch.zeros_like(pitch)).squeeze(-1)
