"""Models of several streams at once, on any provider, with everything bound to its device."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.record import ROOT
from rtsep.contract import AUDIO, ELEMENT_TYPES, STATE_IN, STATE_OUT

CHECKPOINTS = ROOT / "models" / "checkpoints"


def checkpoints() -> dict[str, Path]:
    """Return the checkpoints of the shipped models, by the model's name."""
    from rtsep.zoo import list_models

    paths = {entry.name: CHECKPOINTS / f"{entry.name}.pt" for entry in list_models()}
    return {name: path for name, path in paths.items() if path.exists()}


@functools.lru_cache(maxsize=2)
def graph(checkpoint: Path, batch: int, half: bool = False) -> bytes:
    """Export a checkpoint with a batch; `half`: weights and arithmetic in float16, inputs and outputs in float32.

    Takes seconds. Needs torch.
    """
    from export.wrap import to_onnx
    from models.checkpoint import load_checkpoint

    model, _ = load_checkpoint(checkpoint)
    proto = to_onnx(model, batch)
    if half:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        proto = convert_float_to_float16(proto, keep_io_types=True)
    data: bytes = proto.SerializeToString()
    return data


class BoundModel:
    """A graph whose inputs, states and outputs lie on the device; states swap from call to call.

    Parameters
    ----------
    data : bytes
        The graph.
    batch : int
        What a symbolic first axis stands for.
    provider : {"cpu", "cuda"}
    options : dict
        Of the CUDA provider: ``use_tf32``, ``enable_cuda_graph``.

    Raises
    ------
    RuntimeError
        The provider was not obtained.

    Notes
    -----
    With CUDA graphs the first two calls of each parity capture; all inputs and outputs are on the device, so `upload`
    and `download` are what crosses the bus.
    """

    def __init__(self, data: bytes, batch: int, provider: str = "cpu", options: dict[str, str] | None = None) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
        chosen: list[Any] = [cpu] if provider == "cpu" else [(cuda, {"device_id": "0", **(options or {})}), cpu]
        if provider != "cpu":
            with contextlib.suppress(AttributeError):
                onnxruntime.preload_dlls()
        self.session = onnxruntime.InferenceSession(data, settings, providers=chosen)
        wanted, obtained = cpu if provider == "cpu" else cuda, self.session.get_providers()
        if obtained[0] != wanted:
            raise RuntimeError(f"{wanted} was not obtained, only {', '.join(obtained)}")
        self._device, self._parity = provider, 0
        self._graphs = bool(options and options.get("enable_cuda_graph") == "1")
        rng = np.random.default_rng(0)
        self.host: dict[str, np.ndarray] = {}
        values: dict[str, Any] = {}
        states: list[dict[str, Any]] = [{}, {}]
        for item in self.session.get_inputs():
            shape = [size if isinstance(size, int) else batch for size in item.shape]
            array = np.zeros(shape, ELEMENT_TYPES[item.type])
            if item.name.startswith(STATE_IN):
                for side in states:
                    side[item.name.removeprefix(STATE_IN)] = self._value(array)
                continue
            if item.name == AUDIO:
                array[:] = 0.1 * rng.standard_normal(shape)
            self.host[item.name], values[item.name] = array, self._value(array)
        self.audio = values[AUDIO]
        self.outputs: list[dict[str, Any]] = []
        self._bindings = []
        self._options = []
        for parity in (0, 1):
            binding = self.session.io_binding()
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            outputs = {}
            for name, value in states[parity].items():
                binding.bind_ortvalue_input(STATE_IN + name, value)
                binding.bind_ortvalue_output(STATE_OUT + name, states[1 - parity][name])
            for item in self.session.get_outputs():
                if not item.name.startswith(STATE_OUT):
                    shape = [size if isinstance(size, int) else batch for size in item.shape]
                    outputs[item.name] = self._value(np.zeros(shape, ELEMENT_TYPES[item.type]))
                    binding.bind_ortvalue_output(item.name, outputs[item.name])
            self.outputs.append(outputs)
            self._bindings.append(binding)
            run = onnxruntime.RunOptions()
            if self._graphs:  # one capture for each parity: the addresses differ
                run.add_run_config_entry("gpu_graph_id", str(parity + 1))
            self._options.append(run)

    def run(self) -> None:
        """Run one hop on what lies on the device, and wait for it."""
        binding = self._bindings[self._parity]
        self.session.run_with_iobinding(binding, self._options[self._parity])
        if self._device != "cpu":
            binding.synchronize_outputs()
        self._parity = 1 - self._parity

    def step(self, audio: np.ndarray) -> dict[str, np.ndarray]:
        """Run one hop from audio [B, C, hop] in host memory to outputs in host memory, as a live host needs it."""
        self.audio.update_inplace(audio)
        parity = self._parity
        self.run()
        return {name: value.numpy() for name, value in self.outputs[parity].items()}

    def _value(self, array: np.ndarray) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)
