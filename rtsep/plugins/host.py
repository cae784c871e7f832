"""The side of the plugins that loads, changes and watches them, in the process that plays."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import PluginError, RtsepError, StemNotFoundError, UsageError, suggest
from rtsep.mixer.settings import MixerSettings
from rtsep.plugins.catalog import find_parameter
from rtsep.plugins.loader import LoadedPlugin
from rtsep.plugins.rack import LIVE_LIMIT_S, WARM_UP, MasterRack, Rack, Racks
from rtsep.plugins.slot import Chain, Slot
from rtsep.plugins.spec import MASTER, MAX_SLOTS, PluginSpec, Value

BUDGET = 0.5
"""Part of a hop's time that one plugin may take live."""
HANG_S = 1.0
_REALIGNMENTS = 8
_SWITCH_S = 0.00005
"""A plugin that keeps a hop for longer is given up, with the thread that it holds."""


def make_racks(
    stems: Sequence[str],
    channels: int,
    hop: int,
    rate: int,
    *,
    output_channels: int,
    samplerate: int,
    settings: MixerSettings,
) -> Racks:
    """Return empty racks for a model and an output.

    Parameters
    ----------
    stems, channels, hop, rate
        Of the model, `rate` in hertz.
    output_channels, samplerate
        Of what is heard.
    settings : MixerSettings
    """
    unit = rate // math.gcd(rate, samplerate)  # so that a delay of stems is a whole number of samples at the output
    longest = math.ceil(hop * samplerate / rate) + 1
    master = MasterRack(output_channels, samplerate, longest if samplerate != rate else hop, settings)
    return Racks(Rack(len(stems), channels, rate, hop, unit), master)


class PluginHost:
    """Loads chains into racks.

    Parameters
    ----------
    racks : Racks
    stems : sequence of str
    live : bool
        Plugins that are too slow or too late for live use are refused or left out.
    place : array [2] of int64, optional
        Holds the `place_of` the plugin that works on the audio thread, and of the one that does on this; 0 for none.

    Notes
    -----
    For the main thread of a process (JUCE loads plugins there only); the audio may run on another one.
    """

    def __init__(
        self, racks: Racks, stems: Sequence[str], *, live: bool, place: NDArray[np.int64] | None = None
    ) -> None:
        self._place = place
        self._racks, self._stems, self._live = racks, tuple(stems), live
        self._chains: dict[str, Chain | None] = dict.fromkeys((*stems, MASTER))
        self._told: set[int] = set()
        self._realigned: dict[str, int] = {}
        for rack in (racks.stems, racks.master) if live else ():
            rack.warm_up_s = WARM_UP * rack.block / rack.samplerate
        self._hung: list[Chain] = []  # kept for ever: taking a plugin apart that still works would hang, too

    @property
    def targets(self) -> tuple[str, ...]:
        """Stems, and ``"master"``."""
        return (*self._stems, MASTER)

    def set_chain(
        self, target: str, specs: Iterable[PluginSpec], keep: int = 0, *, at_once: bool = False
    ) -> list[dict[str, Any]]:
        """Load a chain and fade it in; return what `describe` says of each plugin.

        The first `keep` plugins are those that play already, and play on.

        Raises
        ------
        PluginError, UsageError, StemNotFoundError
            Nothing changes then.
        """
        self._check(target)
        chain = self._build(target, tuple(specs), keep)
        self._realigned.pop(target, None)
        self._chains[target] = chain
        self._offer(target, at_once)
        return self.describe(target)

    def describe(self, target: str) -> list[dict[str, Any]]:
        """Return facts of each plugin of a chain: spec (without its state), label, latency, parameters, fault."""
        chain = self._chains[target]
        return [
            {
                "spec": replace(slot.plugin.spec, raw_state=None) if slot.plugin.spec.raw_state else slot.plugin.spec,
                "label": slot.label,
                "latency_samples": slot.latency_samples,
                "parameters": slot.plugin.parameters,
                "fault": slot.fault,
            }
            for slot in (chain.slots if chain is not None else ())
        ]

    def set_parameter(self, target: str, index: int, name: str, value: Value) -> list[dict[str, Any]] | None:
        """Set a parameter from the next hop on.

        Where that brings another latency, the plugin and those after it are loaded anew instead, and everything is
        aligned while they are faded in; then the result is what `describe` says of the chain, else None.

        Raises
        ------
        UsageError
            A wrong name or value, or a parameter that is fixed at loading.
        PluginError
            The new latency is too long for live use.
        """
        slot = self.slot(target, index)
        parameter = find_parameter(slot.plugin.parameters, name, slot.label)
        if not parameter.live:
            raise UsageError(f"{slot.label}: {name} is fixed while the plugin plays; set the chain anew.")
        prepared = slot.plugin.prepare(name, value)
        changed = replace(slot.plugin.spec, parameters={**slot.plugin.spec.parameters, name: value})
        if self._place is not None:
            self._place[1] = place_of(self.targets, target, index)
        with self._gently():
            latency = slot.latency_samples if slot.fault is not None else slot.plugin.latency_with(name, value)
        if self._place is not None:
            self._place[1] = 0
        if latency != slot.latency_samples:
            specs = self._specs(target)
            specs[index] = replace(changed, raw_state=specs[index].raw_state)
            return self.set_chain(target, specs, index)
        slot.plugin.spec = changed
        slot.post(prepared)
        return None

    def set_bypass(self, target: str, index: int, on: bool) -> None:
        """Bypass a plugin or bring it back, with a fade."""
        slot = self.slot(target, index)
        slot.plugin.spec = replace(slot.plugin.spec, bypass=on)
        slot.on = not on

    def state(self, target: str, index: int) -> bytes | None:
        """Return a file plugin's own state; None for a built-in effect or one that failed."""
        slot = self.slot(target, index)
        return None if slot.fault else slot.plugin.state()

    def slot(self, target: str, index: int) -> Slot:
        """Return one slot; UsageError, StemNotFoundError."""
        self._check(target)
        chain = self._chains[target]
        slots = chain.slots if chain is not None else []
        if not 0 <= index < len(slots):
            raise UsageError(f"{target} has {len(slots)} plugins, counted from 0; there is no number {index}.")
        return slots[index]

    def specs(self) -> dict[str, list[PluginSpec]]:
        """Return what makes all chains again, with the plugins' own states; those that failed are left out."""
        found: dict[str, list[PluginSpec]] = {}
        for target, chain in self._chains.items():
            slots = chain.slots if chain is not None else ()
            for slot, spec in zip(slots, self._specs(target), strict=True):
                if slot.fault is None:
                    found.setdefault(target, []).append(spec)
        return found

    def close(self) -> None:
        """Let go of all plugins; nothing plays them any more."""
        for chain in self._chains.values():
            self._close(chain.slots if chain is not None else ())
        self._drop_retired()

    def watch(self) -> list[dict[str, Any]]:
        """Look after the plugins, a few times a second; return what happened, to be told.

        Each entry has ``target``, ``slot``, ``label`` and either ``fault`` or ``latency_samples`` (a plugin reports
        another latency now; its chain was loaded anew). ``hung`` is True for one that holds the audio thread.
        """
        self._drop_retired()
        news: list[dict[str, Any]] = []
        for target, chain in self._chains.items():
            for index, slot in enumerate(chain.slots if chain is not None else ()):
                entered, hung = slot.entered_ns, False
                if self._live and entered and time.monotonic_ns() - entered > 1e9 * HANG_S and not slot.abandoned:
                    slot.fail(f"hung: no answer for {HANG_S:g} s")
                    slot.abandoned = hung = True
                    assert chain is not None
                    self._hung.append(chain)
                where = {"target": target, "slot": index, "label": slot.label}
                if slot.fault is not None and id(slot) not in self._told:
                    self._told.add(id(slot))
                    news.append({**where, "fault": slot.fault, "hung": hung})
        for target in self.targets:
            news += self._follow_latency(target)
        return news

    # --- loading ------------------------------------------------------------------------------------------------------

    def _check(self, target: str) -> None:
        if target not in self._chains:
            raise StemNotFoundError(
                f"No stem {target!r} for plugins; there are {', '.join(self.targets)}.{suggest(target, self.targets)}"
            )

    def _build(self, target: str, specs: Sequence[PluginSpec], keep: int) -> Chain | None:
        if not specs:
            return None
        rack = self._racks.master if target == MASTER else self._racks.stems
        budget = BUDGET * rack.block / rack.samplerate if self._live else None
        playing = self._chains[target]
        slots: list[Slot] = [] if playing is None else list(itertools.takewhile(_sound, playing.slots[:keep]))
        with self._gently():
            for spec in specs[len(slots) :]:
                plugin = LoadedPlugin(spec, rack.channels, rack.samplerate, rack.block)
                self._check_latency([*(slot.plugin for slot in slots), plugin], rack.samplerate)
                if not plugin.streams:
                    raise PluginError(
                        f"{spec.label} cannot be used: it gives silence when it gets its sound block by block, as it "
                        "does here, and is right for whole recordings only (docs/plugins.md)."
                    )
                slots.append(
                    Slot(plugin, rack.channels, rack.samplerate, rack.block, bypass=spec.bypass, budget_s=budget)
                )
        if self._place is not None:
            for index, slot in enumerate(slots):
                slot.place = (self._place, place_of(self.targets, target, index))
        return Chain(slots)

    @contextmanager
    def _gently(self) -> Iterator[None]:
        """Loading is a lot of Python, and the audio thread needs the interpreter a few times a hop."""
        interval = sys.getswitchinterval()
        if self._live:
            sys.setswitchinterval(_SWITCH_S)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)

    def _check_latency(self, plugins: list[LoadedPlugin], rate: int) -> None:
        total = sum(plugin.latency_samples for plugin in plugins)
        # The common delay of the stems is rounded up to its unit, at most 147 samples (441 to 480).
        if self._live and total > LIVE_LIMIT_S * rate - 147:
            own = plugins[-1].latency_samples
            raise PluginError(
                f"{plugins[-1].spec.label} is {own} samples late ({1000 * own / rate:.0f} ms), "
                + (f"with the plugins before it {1000 * total / rate:.0f} ms, " if total != own else "")
                + f"and live a chain may be {1000 * LIVE_LIMIT_S:.0f} ms late. "
                "Files have no such limit: rtsep separate --plugin"
            )

    def _offer(self, target: str, at_once: bool) -> None:
        if target == MASTER:
            self._racks.master.offer([self._chains[MASTER]], at_once=at_once)
        else:
            self._racks.stems.offer([self._chains[stem] for stem in self._stems], at_once=at_once)

    def _specs(self, target: str) -> list[PluginSpec]:
        """What makes a chain again, with the plugins' own states."""
        chain = self._chains[target]
        slots = chain.slots if chain is not None else ()
        return [replace(s.plugin.spec, raw_state=None if s.fault else s.plugin.state()) for s in slots]

    def _follow_latency(self, target: str) -> list[dict[str, Any]]:
        """Load a chain anew in which a plugin reports another latency than before: the mix is aligned to it."""
        chain = self._chains[target]
        rack = self._racks.master if target == MASTER else self._racks.stems
        if chain is None or not rack.settled or any(slot.fault for slot in chain.slots):
            return []
        changed = [
            (index, slot)
            for index, slot in enumerate(chain.slots)
            if slot.plugin.reported_latency() != slot.latency_samples
        ]
        if not changed:
            return []
        index, slot = changed[0]
        where = {"target": target, "slot": index, "label": slot.label}
        reported = slot.plugin.reported_latency()
        times = self._realigned.get(target, 0) + 1
        if times > _REALIGNMENTS:
            slot.fail(f"changes its latency all the time, to {reported} samples now")
            return []
        try:
            self.set_chain(target, self._specs(target), index)
        except RtsepError as error:
            slot.fail(f"is {reported} samples late now: {error}")
            return []
        self._realigned[target] = times
        return [{**where, "latency_samples": reported}]

    def _drop_retired(self) -> None:
        gone = [*self._racks.stems.collect(), *self._racks.master.collect()]
        if gone:
            playing = {id(slot) for chain in self._chains.values() if chain is not None for slot in chain.slots}
            self._told &= playing
            self._close(slot for chain in gone for slot in chain.slots if id(slot) not in playing)

    @staticmethod
    def _close(slots: Iterable[Slot]) -> None:
        for slot in slots:
            if not slot.abandoned:
                slot.plugin.close()


def place_of(targets: Sequence[str], target: str, slot: int) -> int:
    """Return the number of a slot, from 1."""
    return targets.index(target) * MAX_SLOTS + slot + 1


def _sound(slot: Slot) -> bool:
    return slot.fault is None


def load_chains(
    racks: Racks,
    stems: Sequence[str],
    chains: Mapping[str, Sequence[PluginSpec]],
    *,
    live: bool,
    place: NDArray[np.int64] | None = None,
) -> PluginHost:
    """Return a host with these chains in place from the first sample on. PluginError, UsageError."""
    host = PluginHost(racks, stems, live=live, place=place)
    for target, specs in chains.items():
        host.set_chain(target, specs, at_once=True)
    return host
