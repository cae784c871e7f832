"""Latency as a sum of named parts, standard library only.

Where each part comes from, and the measurements that the sum was checked against: ``docs/latency.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rtsep.errors import UsageError


def adaptation_samples(block: int, hop: int) -> int:
    """Return the extra samples that turn device blocks into model hops without ever running dry.

    A sample can wait at most this long for its hop to be complete, over all phases between the two sizes.

    Parameters
    ----------
    block : int
        Frames the device hands over per callback, 1 or more.
    hop : int
        Samples the model consumes per step, 1 or more.

    Returns
    -------
    int
        ``hop - gcd(block, hop)``, 0 when `hop` divides `block`.

    Raises
    ------
    UsageError
        When either size is below 1.
    """
    if block < 1 or hop < 1:
        raise UsageError(f"block and hop must be 1 or more, got block={block}, hop={hop}.")
    return hop - math.gcd(block, hop)


@dataclass(frozen=True)
class LatencyPart:
    """One named contribution.

    Parameters
    ----------
    name : str
        For example ``"adaptation"``.
    samples : int
        At `samplerate`.
    samplerate : int
        In hertz; a part inside the model counts at the model's rate.
    why : str
        One line: where the number comes from.
    """

    name: str
    samples: int
    samplerate: int
    why: str

    @property
    def ms(self) -> float:
        """The part in milliseconds."""
        return self.samples * 1000.0 / self.samplerate


@dataclass(frozen=True)
class LatencyReport:
    """All parts from microphone to loudspeaker.

    Parameters
    ----------
    parts : tuple of LatencyPart
        In the order the sound takes.
    samplerate : int
        The device's, in hertz: the rate of the totals.
    stream_samples : int
        How much later a frame goes back to the device than the frame captured in the same callback: what is seen
        inside the audio stream, without converters. A file fed through the engine comes out this much later.
    """

    parts: tuple[LatencyPart, ...]
    samplerate: int
    stream_samples: int

    @property
    def total_samples(self) -> int:
        """Sum of all parts at the device's rate, rounded to the nearest sample (exact for reports of the engine)."""
        return round(sum(Fraction(part.samples * self.samplerate, part.samplerate) for part in self.parts))

    @property
    def total_ms(self) -> float:
        """Sum of all parts in milliseconds."""
        return sum(part.ms for part in self.parts)

    def __getitem__(self, name: str) -> LatencyPart:
        """Return the part called `name`; KeyError when there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def lines(self) -> list[str]:
        """Return a table for a person, one string a line, no trailing spaces."""
        rows = [f"  {'source':<14} {'samples':>8} {'ms':>8}"]
        for part in self.parts:
            at = "" if part.samplerate == self.samplerate else f" (samples at {part.samplerate} Hz)"
            rows.append(f"  {part.name:<14} {part.samples:>8} {part.ms:>8.1f}   {part.why}{at}".rstrip())
        rows.append(f"  {'total':<14} {self.total_samples:>8} {self.total_ms:>8.1f}")
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "samplerate": self.samplerate,
            "total_samples": self.total_samples,
            "total_ms": round(self.total_ms, 3),
            "stream_samples": self.stream_samples,
            "parts": [
                {
                    "name": part.name,
                    "samples": part.samples,
                    "samplerate": part.samplerate,
                    "ms": round(part.ms, 3),
                    "why": part.why,
                }
                for part in self.parts
            ],
        }


@dataclass(frozen=True)
class LatencyPlan:
    """What the engine needs to place every sample, and the report that says the same to a person.

    Parameters
    ----------
    queue_samples : int
        Block + adaptation + slack, at the device's rate: output sample ``j`` of the chain is played at ``j`` plus this.
    content_samples : int
        How much later a sound sits in the chain's output than in its input, at the device's rate: model, resamplers.
    report : LatencyReport
    """

    queue_samples: int
    content_samples: int
    report: LatencyReport


def plan_latency(
    *,
    samplerate: int,
    block: int,
    hop: int,
    model_latency: int,
    model_samplerate: int | None = None,
    slack_hops: int = 1,
    resampler_in: int = 0,
    resampler_out: int = 0,
    plugins: int = 0,
    device_in: int = 0,
    device_out: int = 0,
    block_varies: bool = False,
) -> LatencyPlan:
    """Add up the latency of one engine.

    Parameters
    ----------
    samplerate, model_samplerate : int
        Of the device and of the model in hertz; the same when `model_samplerate` is left out.
    block : int
        Frames per device callback; the largest seen when it varies.
    hop, model_latency, resampler_in : int
        At the model's rate.
    slack_hops : int
        Hops the worker may be late before the output would run dry; 0 or more.
    resampler_out, plugins, device_in, device_out : int
        At the device's rate. `device_in` and `device_out` are what lies outside the stream: converters, buffers of
        the sound server, wires.
    block_varies : bool
        The device hands over blocks of different sizes, so that no common divisor can be counted on.

    Returns
    -------
    LatencyPlan

    Raises
    ------
    UsageError
        When a size is out of range, or the chain's delay is not a whole number of device samples.
    """
    rate = model_samplerate or samplerate
    if slack_hops < 0:
        raise UsageError(f"slack_hops must be 0 or more, got {slack_hops}.")
    hop_exact = Fraction(hop * samplerate, rate)
    hop_device = math.ceil(hop_exact)
    if hop_exact.denominator != 1:
        # Hops end on fractions of a device sample, so every phase occurs, and both ends round against us.
        adaptation, how = hop_device, f"hop {hop} is {float(hop_exact):.1f} device samples"
    elif block_varies:
        adaptation, how = hop_device - 1, f"hop {hop_device} - 1, the device's blocks vary in size"
    else:
        adaptation = adaptation_samples(block, hop_device)
        how = f"hop {hop_device} - gcd({block}, {hop_device})"
    slack = slack_hops * hop_device
    content = Fraction((resampler_in + model_latency) * samplerate, rate) + resampler_out + plugins
    if content.denominator != 1:
        raise UsageError(
            f"model latency {model_latency} + resampler {resampler_in} at {rate} Hz is not a whole number of samples "
            f"at {samplerate} Hz; pad the resampler's delay (see rtsep.audio.resampler.whole_delay)."
        )
    queue = block + adaptation + slack
    plural = "" if slack_hops == 1 else "s"
    same = rate == samplerate
    resampler = "" if same else f"{samplerate} to {rate} Hz"
    out = f"block {block}: handed over one callback later"
    parts = (
        LatencyPart("device in", device_in, samplerate, "buffers and converter" if device_in else "nothing outside"),
        LatencyPart("resampler in", resampler_in, rate, resampler or "rates equal"),
        LatencyPart("adaptation", adaptation, samplerate, how),
        LatencyPart("model", model_latency, rate, "from the model file"),
        LatencyPart("worker slack", slack, samplerate, f"{slack_hops} hop{plural} of time to compute in"),
        LatencyPart("resampler out", resampler_out, samplerate, "and back" if resampler else "rates equal"),
        LatencyPart("plugins", plugins, samplerate, "none" if not plugins else "as they report"),
        LatencyPart("device out", block + device_out, samplerate, out + (f" + {device_out}" if device_out else "")),
    )
    return LatencyPlan(queue, int(content), LatencyReport(parts, samplerate, queue + int(content)))
