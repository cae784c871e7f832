"""The engine's plugins as its control side sees them."""

from __future__ import annotations

import collections
import itertools
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rtsep.engine.wire import error_of
from rtsep.errors import EngineError, PluginError, UsageError
from rtsep.plugins.catalog import find_parameter
from rtsep.plugins.scan import admit, loading_s, remember_crash
from rtsep.plugins.spec import MASTER, MAX_SLOTS, PluginSpec, Value, check_chains

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo
    from rtsep.engine.config import EngineConfig
    from rtsep.engine.shared import SharedBlock
    from rtsep.plugins.catalog import Parameter

_ANSWER_S = 20.0


@dataclass(frozen=True)
class PluginSlot:
    """One plugin of a running engine.

    Attributes
    ----------
    spec : PluginSpec
        As it is set now, without the state of its own that a plugin from a file keeps.
    label : str
    latency_samples : int
        At the rate of the model for a stem, at that of the device for the master.
    parameters : mapping of str to Parameter
        With ranges and defaults.
    fault : str or None
        Why the engine leaves it out for good.
    """

    spec: PluginSpec
    label: str
    latency_samples: int
    parameters: Mapping[str, Parameter]
    fault: str | None


class PluginControls:
    """What `rtsep.engine.Engine` can do with plugins; not for use by itself.

    Methods may be called from any thread of the control process. Those that load wait for the engine's answer; the
    sound goes on meanwhile.
    """

    config: EngineConfig
    _shared: SharedBlock | None
    _ready: dict[str, Any] | None

    @property
    def info(self) -> ModelInfo:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self._chains: dict[str, tuple[PluginSlot, ...]] = {}
        self._chains_lock = threading.RLock()
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._plugin_news: collections.deque[dict[str, Any]] = collections.deque(maxlen=256)

    def _command(self, kind: str, **values: Any) -> None:
        raise NotImplementedError

    def _started(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def chains(self) -> dict[str, tuple[PluginSlot, ...]]:
        """The plugins of every stem and of ``"master"``, in the order of the sound. UsageError before `start`."""
        self._started()
        with self._chains_lock:
            return {target: self._chains.get(target, ()) for target in (*self.info.stems, MASTER)}

    def chain_specs(self, *, states: bool = True) -> dict[str, tuple[PluginSpec, ...]]:
        """Return what `set_chain`, or the argument `chains`, needs to make the same chains again; empty ones left out.

        With `states`, the state of plugins from files is asked for, too. EngineError when the engine has ended.
        """
        chains = {target: tuple(self._specs(target, 0 if states else MAX_SLOTS)) for target in self.chains}
        return {target: specs for target, specs in chains.items() if specs}

    def set_chain(self, target: str, specs: Iterable[PluginSpec]) -> None:
        """Give a stem, or ``"master"``, other plugins; cross-fades from the old ones in 20 ms when they are loaded.

        Parameters
        ----------
        target : str
        specs : iterable of PluginSpec
            In the order of the sound; empty for none.

        Raises
        ------
        PluginError
            One of them cannot be used, or is too late for live use; the old chain plays on.
        UsageError, StemNotFoundError
            A wrong name or value; likewise.
        EngineError
            The engine has ended.

        Notes
        -----
        A file that was never seen before is tried in a process of its own first, which takes up to 30 s. Plugins that
        the chain begins with, now as before, play on; all others start anew, and tails of the old ones end with the
        fade. When the chain's latency is another than before, everything is aligned to it, with the same cross-fade:
        for 20 ms the old and the new moment are heard together, and `latency` is another one from then on.
        """
        self._started()
        chain = check_chains({target: specs}, self.info.stems).get(target, ())
        chain = admit(chain)
        with self._chains_lock:
            keep = _equal(chain, self.chains[target])
            patience = _ANSWER_S + 3.0 * loading_s(chain[keep:])
            described = self._ask("set_chain", target, chain, keep, timeout_s=patience)
            self._keep(target, described)

    def add_plugin(self, target: str, spec: PluginSpec, at: int | None = None) -> None:
        """Put a plugin before slot `at`, at the end when left out. Raises as `set_chain`."""
        with self._chains_lock:
            at = len(self._named(target)) if at is None else at
            specs = self._specs(target, at)
            specs.insert(at, spec)
            self.set_chain(target, specs)

    def remove_plugin(self, target: str, slot: int) -> None:
        """Take a plugin out of a chain. Raises as `set_chain`."""
        with self._chains_lock:
            self._slot(target, slot)
            specs = self._specs(target, slot)
            del specs[slot]
            self.set_chain(target, specs)

    def move_plugin(self, target: str, slot: int, to: int) -> None:
        """Put a plugin of a chain at place `to`, counted from 0. Raises as `set_chain`."""
        with self._chains_lock:
            self._slot(target, slot)
            self._slot(target, to)
            specs = self._specs(target, min(slot, to))
            specs.insert(to, specs.pop(slot))
            self.set_chain(target, specs)

    def set_plugin_parameter(self, target: str, slot: int, name: str, value: Value) -> None:
        """Set a parameter from the next hop on.

        Raises
        ------
        UsageError
            No such slot or parameter, or a value out of range.
        PluginError
            It would make the chain too late for live use.
        EngineError
            The engine has ended.

        Notes
        -----
        Answers within a few milliseconds. The first parameter of a plugin from a file takes as long as loading it once
        more, since the answer to whether a value changes its latency comes from a second copy. Where it does, and for
        parameters that are fixed at loading (``live`` is False), the plugin and those after it are loaded anew, as by
        `set_chain`.
        """
        with self._chains_lock:
            entry = self._slot(target, slot)
            parameter = find_parameter(entry.parameters, name, entry.label)
            value = parameter.check(value, entry.label)
            spec = replace(entry.spec, parameters={**entry.spec.parameters, name: value})
            if not parameter.live:
                specs = self._specs(target, slot)
                specs[slot] = replace(spec, raw_state=specs[slot].raw_state)
                self.set_chain(target, specs)
                return
            described = self._ask("set_parameter", target, slot, name, value)
            if described is None:
                self._change(target, slot, replace(entry, spec=spec))
            else:
                self._keep(target, described)

    def set_plugin_bypass(self, target: str, slot: int, on: bool = True) -> None:
        """Bypass a plugin or bring it back, with a fade of 10 ms; its latency stays. UsageError, EngineError."""
        with self._chains_lock:
            entry = self._slot(target, slot)
            self._ask("set_bypass", target, slot, bool(on))
            self._change(target, slot, replace(entry, spec=replace(entry.spec, bypass=bool(on))))

    def plugin_news(self) -> list[str]:
        """Return sentences on what plugins did since the last call: left out, or aligned anew. Any thread."""
        found = []
        while self._plugin_news:
            news = self._plugin_news.popleft()
            where = f"{news['label']} on {news['target']}"
            if "fault" in news:
                found.append(f"{where} is left out: {news['fault']}.")
            else:
                found.append(f"{where} is {news['latency_samples']} samples late now; everything is aligned to it.")
        return found

    # --- inside -------------------------------------------------------------------------------------------------------

    def _admitted(self) -> tuple[dict[str, tuple[PluginSpec, ...]], float]:
        """Return the chains to start with, fit to be loaded, and the seconds that may take. PluginError."""
        chains = {target: admit(specs) for target, specs in self.config.chains.items()}
        return chains, sum(3.0 * loading_s(specs) for specs in chains.values())

    def _blame_plugin(self, how: str) -> str:
        """Name the plugin that was at work when the engine died; a file is not loaded again before it is rescanned."""
        from rtsep.engine.stats import INDEX

        if self._shared is None or self._ready is None:
            return ""
        counters = self._shared.counters
        place = int(counters[INDEX["plugin_asked"]] or counters[INDEX["plugin_at"]])
        if not place:
            return ""
        number, index = divmod(place - 1, MAX_SLOTS)
        target = [*self.info.stems, MASTER][number]
        slots = self._chains.get(target, ())
        if index >= len(slots):
            return ""
        if slots[index].spec.external:
            remember_crash(slots[index].spec.plugin, f"{how} while the engine played")
        return f", while {slots[index].label} on {target} worked"

    def _named(self, target: str) -> tuple[PluginSlot, ...]:
        check_chains({target: ()}, self.info.stems)
        return self.chains[target]

    def _specs(self, target: str, from_slot: int) -> list[PluginSpec]:
        """Return the specs of a chain, with their states from a slot on: those before it are to play on."""
        specs = []
        for index, slot in enumerate(self._named(target)):
            state = None
            if index >= from_slot and slot.spec.external and not slot.fault:
                state = self._ask("state", target, index)
            specs.append(slot.spec if state is None else replace(slot.spec, raw_state=state))
        return specs

    def _slot(self, target: str, slot: int) -> PluginSlot:
        slots = self._named(target)
        if not 0 <= slot < len(slots):
            raise UsageError(f"{target} has {len(slots)} plugins, counted from 0; there is no number {slot}.")
        return slots[slot]

    def _change(self, target: str, slot: int, entry: PluginSlot) -> None:
        slots = list(self._chains[target])
        slots[slot] = entry
        self._chains[target] = tuple(slots)

    def _keep(self, target: str, described: list[dict[str, Any]]) -> None:
        self._chains[target] = tuple(PluginSlot(**facts) for facts in described)

    def _keep_all(self, chains: dict[str, list[dict[str, Any]]]) -> None:
        for target, described in chains.items():
            self._keep(target, described)

    def _ask(self, what: str, *values: Any, timeout_s: float = _ANSWER_S) -> Any:
        number = next(self._numbers)
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting[number] = answers
        try:
            self._command("plugins", number=number, what=what, values=values)
            while True:
                try:
                    answer = answers.get(timeout=min(timeout_s, 0.5))
                    break
                except queue.Empty:
                    timeout_s -= 0.5
                if not self.running:
                    raise EngineError("The engine has ended.")
                if timeout_s <= 0:
                    raise PluginError("The engine did not answer in time. See: rtsep plugins scan --rescan")
        finally:
            del self._waiting[number]
        if "type" in answer:
            raise error_of(answer, PluginError)
        return answer["result"]

    def _hear_plugins(self, message: dict[str, Any]) -> None:
        """Take an answer, or news, of the engine. For its listening thread."""
        if message["kind"] == "plugins":
            waiting = self._waiting.get(message["number"])
            if waiting is not None:
                waiting.put(message)
            return
        news = message["news"]
        self._plugin_news.append(news)
        # Not under the lock, which is held while an answer is waited for; tuples are swapped as a whole.
        slots = self._chains.get(news["target"], ())
        if len(slots) == len(message["chain"]):
            self._chains[news["target"]] = tuple(
                replace(slot, **facts) for slot, facts in zip(slots, message["chain"], strict=True)
            )


def _equal(specs: Sequence[PluginSpec], slots: Sequence[PluginSlot]) -> int:
    """Return with how many of the playing plugins a chain begins."""
    count = 0
    for spec, slot in zip(specs, slots, strict=False):
        if spec != slot.spec or slot.fault is not None:
            break
        count += 1
    return count
