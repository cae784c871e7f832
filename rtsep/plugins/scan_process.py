"""``python -m rtsep.plugins.scan_process FILE RESULT``: load one plugin file, play it a little, write down what it is.

Started by `rtsep.plugins.scan` alone. It may crash or hang at any moment; RESULT says how far it came.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_RATE, _BLOCK, _BLOCKS = 48_000, 512, 40


def main(path: str, answer: Path) -> None:
    """Write the facts of each plugin in `path`, or why it cannot be used, to `answer` as JSON."""
    _write(answer, {"stage": "while it was loaded and tried"})
    from rtsep.errors import RtsepError
    from rtsep.plugins.loader import load_pedalboard

    pedalboard = load_pedalboard()
    kind = pedalboard.VST3Plugin if path.lower().endswith(".vst3") else pedalboard.AudioUnitPlugin
    try:
        names = list(kind.get_plugin_names_for_file(path))
        if not names:
            raise ImportError("there is no plugin in it")
        plugins = [_facts(path, name, answer) for name in names]
    except (RtsepError, ImportError, ValueError, RuntimeError) as error:
        _write(answer, {"error": " ".join(str(error).split())})
        return
    _write(answer, {"plugins": plugins})


def _facts(path: str, name: str, answer: Path) -> dict[str, Any]:
    import numpy as np

    from rtsep.errors import PluginError
    from rtsep.plugins.loader import LoadedPlugin, external_parameters, load_pedalboard
    from rtsep.plugins.spec import PluginSpec

    began = time.monotonic()
    facts: dict[str, Any] = {"name": name, "instrument": False}
    try:
        plugin = LoadedPlugin(PluginSpec(path, name=name), 2, _RATE, _BLOCK)
    except PluginError:
        native = load_pedalboard().load_plugin(path, plugin_name=name)
        if not native.is_instrument:
            raise
        facts.update(_names(native), instrument=True, latency_samples=0, load_s=round(time.monotonic() - began, 3))
        facts["parameters"] = [parameter.to_dict() for parameter in external_parameters(native).values()]
        return facts
    facts.update(_names(plugin.native), latency_samples=plugin.latency_samples)
    facts["load_s"] = round(time.monotonic() - began, 3)
    facts["parameters"] = [parameter.to_dict() for parameter in plugin.parameters.values()]
    _write(answer, {"stage": f"while {name} processed sound"})
    rng = np.random.default_rng(0)
    for number in range(_BLOCKS):
        audio = (0.1 * rng.standard_normal((2, _BLOCK))).astype(np.float32)
        if number % 4 == 3:
            audio.fill(0.0)
        if not np.isfinite(plugin.process(audio)).all():
            raise PluginError(f"{name} gives NaN or infinity.")
    _write(answer, {"stage": f"while {name} gave its state"})
    facts["state_bytes"] = len(plugin.state() or b"")
    return facts


def _names(plugin: Any) -> dict[str, str]:
    return {
        "maker": str(plugin.manufacturer_name),
        "category": str(plugin.category),
        "version": str(plugin.version),
    }


def _write(answer: Path, document: dict[str, Any]) -> None:
    answer.with_suffix(".part").write_text(json.dumps(document), encoding="utf-8")
    os.replace(answer.with_suffix(".part"), answer)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    sys.stderr.flush()
    os._exit(0)  # what a plugin does when it is taken apart is nobody's business any more
