"""Memory of a session: everything a hop reads or writes, allocated and bound once.

Two sets of states swap their roles from hop to hop, so no state is ever copied; stems and notes alternate
between two sets as well, so that what one hop returned survives the next. On CUDA the states stay on the
device; only audio, controls, stems and notes cross the bus.

CUDA graphs are left out: capture needs every bound tensor on the device, one capture per parity, and a graph
without a node on the CPU, none of which can be checked where this was written (no GPU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import AUDIO, STATE_IN, STATE_OUT

TensorLayout = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape with a batch of 1, and dtype."""


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that start on a cache line, as ONNX Runtime's own allocations do."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


class Buffers:
    """Bound memory for the two parities of a streaming session.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    device : str
        ``"cpu"`` or ``"cuda"``.
    states : mapping of str to TensorLayout
        By path, without ``state_in/``.
    inputs : mapping of str to TensorLayout
        Audio and controls, by graph name.
    outputs : mapping of str to TensorLayout
        Stems and notes, by graph name.

    Attributes
    ----------
    inputs : dict of str to ndarray
        Host memory the next hop reads. On CUDA call :meth:`upload` after a change.
    outputs : tuple of two dicts of str to ndarray
        Host memory that the hops of even and odd parity write.
    """

    def __init__(
        self,
        session: Any,
        device: str,
        states: Mapping[str, TensorLayout],
        inputs: Mapping[str, TensorLayout],
        outputs: Mapping[str, TensorLayout],
    ) -> None:
        self._session = session
        self._on_device = device != "cpu"
        self._device = device
        self.inputs = {name: aligned_zeros(*layout) for name, layout in inputs.items()}
        self.outputs = tuple({name: aligned_zeros(*layout) for name, layout in outputs.items()} for _ in range(2))
        self._device_zeros: dict[str, NDArray[Any]] = {}
        if self._on_device:
            self._device_zeros = {path: aligned_zeros(*layout) for path, layout in states.items()}
        self._input_values = {name: self._input_value(array) for name, array in self.inputs.items()}
        self._host_states: list[dict[str, NDArray[Any]]] = []
        self._state_values: list[dict[str, Any]] = []
        for _ in range(2):
            self._add_state_set(states)
        self._bindings = [self._bind(parity) for parity in range(2)]

    def upload(self, name: str) -> None:
        """Take over a change of ``inputs[name]``: nothing on the CPU, a copy to the device on CUDA."""
        if self._on_device:
            self._input_values[name].update_inplace(self.inputs[name])

    def run(self, parity: int) -> None:
        """Run one hop: state set `parity` in, the other out. Real-time safe on the CPU; releases the GIL."""
        if self._on_device:
            self._input_values[AUDIO].update_inplace(self.inputs[AUDIO])
        binding = self._bindings[parity]
        self._session.run_with_iobinding(binding)
        if self._on_device:
            binding.synchronize_outputs()

    def zero_states(self) -> None:
        """Set both state sets to zero, in place. Real-time safe on the CPU."""
        if self._on_device:
            for values in self._state_values:
                for path, value in values.items():
                    value.update_inplace(self._device_zeros[path])
        else:
            for arrays in self._host_states:
                for array in arrays.values():
                    array.fill(0)

    def _input_value(self, array: NDArray[Any]) -> Any:
        import onnxruntime as ort

        # On the CPU the value is the array's own memory; on a device it is a copy that upload() renews.
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def _add_state_set(self, states: Mapping[str, TensorLayout]) -> None:
        import onnxruntime as ort

        arrays: dict[str, NDArray[Any]] = {}
        values: dict[str, Any] = {}
        for path, layout in states.items():
            if self._on_device:
                # A copy of zeros allocates on the device and sets it at once.
                values[path] = ort.OrtValue.ortvalue_from_numpy(self._device_zeros[path], self._device, 0)
            else:
                arrays[path] = aligned_zeros(*layout)
                values[path] = ort.OrtValue.ortvalue_from_numpy(arrays[path], "cpu", 0)
        self._host_states.append(arrays)
        self._state_values.append(values)

    def _bind(self, parity: int) -> Any:
        import onnxruntime as ort

        binding = self._session.io_binding()
        for name, value in self._input_values.items():
            binding.bind_ortvalue_input(name, value)
        for path, value in self._state_values[parity].items():
            binding.bind_ortvalue_input(STATE_IN + path, value)
        for path, value in self._state_values[1 - parity].items():
            binding.bind_ortvalue_output(STATE_OUT + path, value)
        for name, array in self.outputs[parity].items():
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array, "cpu", 0))
        return binding
