"""Checkpoints with the layers, names and shapes of upstream's, written without TensorFlow.

The layers are written down here from upstream's configuration, not taken from our own class: a mistake in the class
must not repeat itself in what it is tested with. The order is that of Keras' graph: by depth, so that the layers of the
condition come before the first FiLM and its two heads after the first convolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Layers = list[tuple[str, dict[str, Array]]]
FILTERS = (16, 32, 64, 128, 256, 512)
WIDTHS = {
    "simple_dense": (16, 64, 256),
    "complex_dense": (16, 256, 1024),
    "simple_cnn": (16, 32, 64),
    "complex_cnn": (32, 64, 256),
}
PARAMETERS = {
    "standard": 9_826_325,
    "simple_dense": 9_848_497,
    "complex_dense": 12_165_445,
    "simple_cnn": 9_837_905,
    "complex_cnn": 10_419_925,
}
"""As Keras counts them, with the statistics of batch normalisation."""
SMALL = ((2, 3), (4, 5, 6))


def layers(
    variant: str, filters: tuple[int, ...] = FILTERS, widths: tuple[int, ...] = (), *, first_number: int = 0
) -> Layers:
    """Kinds and random arrays in the order of the graph.

    Parameters
    ----------
    variant : str
    filters, widths : tuple of int
        Of the encoder and of the control network; upstream's when left out.
    first_number : int
        Where Keras' numbering of each kind of layer starts: it goes on from model to model in one process.
    """
    random = np.random.default_rng(3)
    out: Layers = []
    numbers: dict[str, int] = {}

    def add(kind: str, **shapes: tuple[int, ...]) -> None:
        number = numbers.setdefault(kind, first_number)
        numbers[kind] += 1
        arrays = {name: random.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
        out.append((f"{kind}_{number}" if number else kind, arrays))

    def norm(width: int) -> None:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        add("batch_normalization", **dict.fromkeys(names, (width,)))

    film, _, control = variant.partition("_")
    widths = widths or WIDTHS.get(variant, ())
    before = 4 if control == "dense" else 1
    for index, width in enumerate(widths if control else ()):
        if control == "dense":
            add("dense", kernel=(before, width), bias=(width,))
        else:
            add("conv1d", kernel=(4, before, width), bias=(width,))
        if index:
            norm(width)
        before = width
    inputs = 1
    for index, width in enumerate(filters):
        add("conv2d", kernel=(5, 5, inputs, width), bias=(width,))
        if index == 0 and control:
            size = len(filters) if film == "simple" else sum(filters)
            for _ in range(2):
                add("dense", kernel=(widths[-1], size), bias=(size,))
        norm(width)
        inputs = width
    for index, width in enumerate((*filters[-2::-1], 1)):
        add("conv2d_transpose", kernel=(5, 5, width, inputs if index == 0 else 2 * inputs), bias=(width,))
        norm(width)
        inputs = width
    return out


def write_h5(path: Path, content: Layers, *, whole_model: bool = True) -> Path:
    """Write as ``Model.save`` does (``model_weights/LAYER/LAYER/kernel:0``), or as ``save_weights`` (no first group).

    Layers without weights are listed as well.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        names = ["input_1", *(name for name, _ in content), "multiply"]
        root.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            arrays = dict(content).get(name, {})
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in arrays]
            for weight, array in arrays.items():
                group.create_dataset(f"{name}/{weight}:0", data=array)
    return path


def tf_tensors(content: Layers) -> dict[str, Array]:
    """Arrays by the keys of a TensorFlow checkpoint."""
    return {
        f"layer_with_weights-{number}/{weight}/.ATTRIBUTES/VARIABLE_VALUE": array
        for number, (_, arrays) in enumerate(content)
        for weight, array in arrays.items()
    }


def write_bundle(
    prefix: Path, tensors: dict[str, NDArray], *, block_bytes: int = 4096, compression: int = 0, endianness: int = 0
) -> Path:
    """Write ``PREFIX.index`` and ``PREFIX.data-00000-of-00001`` in TensorFlow's format, checksums left at zero.

    Parameters
    ----------
    block_bytes : int
        Entries are put into a new block when the present one is this large.
    compression, endianness : int
        Written into block trailers and header; the blocks themselves stay as they are.
    """
    data, values = b"", {"": _field(1, 1) + (_field(2, endianness) if endianness else b"")}
    for key in sorted(tensors):
        array = np.asarray(tensors[key])
        kind = {"float32": 1, "int64": 9, "object": 7}[str(array.dtype)]
        raw = b"graph" if kind == 7 else array.tobytes()
        shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
        values[key] = _field(1, kind) + _field(2, shape) + _field(4, len(data)) + _field(5, len(raw)) + b"\x35\0\0\0\0"
        data += raw
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)

    table, handles, block = b"", [], []

    def finish(entries: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal table
        handle = _varint(len(table)) + _varint(len(content := _block(entries)))
        table += content + bytes([compression]) + bytes(4)
        return handle

    for key, value in sorted((key.encode(), value) for key, value in values.items()):
        block.append((key, value))
        if sum(len(k) + len(v) for k, v in block) >= block_bytes:
            handles.append((key, finish(block)))
            block = []
    if block:
        handles.append((block[-1][0], finish(block)))
    footer = finish([]) + finish(handles)
    table += footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    index = prefix.with_name(prefix.name + ".index")
    index.write_bytes(table)
    return index


def _block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Prefix-compressed entries with a restart point at every third."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % 3 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return out + b"".join(r.to_bytes(4, "little") for r in restarts) + len(restarts).to_bytes(4, "little")


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)
