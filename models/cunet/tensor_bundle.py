"""TensorFlow checkpoints (``NAME.index`` and ``NAME.data-00000-of-00001``) as NumPy arrays, without TensorFlow.

The index is a sorted table in the format of LevelDB (table_format.md there): blocks of prefix-compressed keys, an index
block of block handles, a footer of 48 bytes. Its values are protocol buffers, ``BundleHeaderProto`` under the empty key
and ``BundleEntryProto`` for every tensor (tensorflow/core/protobuf/tensor_bundle.proto); the data files hold the raw
little-endian numbers. Checksums are not verified, sizes and bounds are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # compression type and checksum behind every block
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # DataType of tensorflow/core/framework/types.proto
_DT_STRING = 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BundleError(ValueError):
    """A file is no TensorFlow checkpoint, or not a whole one."""


def read_bundle(prefix: Path) -> dict[str, NDArray[np.generic]]:
    """Return all numeric tensors of a checkpoint by key; strings (the object graph) are left out.

    Parameters
    ----------
    prefix : Path
        The common start of the files' names, such as ``checkpoint/ckpt``.

    Raises
    ------
    FileNotFoundError
        A file of the checkpoint is missing.
    BundleError
        The index is damaged, compressed or big-endian, or a tensor lies outside the data.
    """
    index = prefix.with_name(prefix.name + ".index")
    entries = dict(_table(index))
    header = _fields(index, entries.pop("", b""))
    shards = _number(index, header, 1)
    if _number(index, header, 2):
        raise BundleError(f"{index} was written on a big-endian machine, which is not supported.")
    tensors: dict[str, NDArray[np.generic]] = {}
    data: dict[int, bytes] = {}
    for key, value in entries.items():
        fields = _fields(index, value)
        kind, shard = _number(index, fields, 1), _number(index, fields, 3)
        if kind == _DT_STRING:
            continue
        if kind not in _DTYPES or 7 in fields:
            raise BundleError(f"{index}: {key} has the data type {kind}{' in slices' if 7 in fields else ''}; "
                              "only whole tensors of floats and integers are read.")  # fmt: skip
        if shard not in data:
            file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
            if not file.is_file():
                raise FileNotFoundError(f"{index} needs {file.name} beside it, which is not there; copy it too.")
            data[shard] = file.read_bytes()
        shape = _shape(index, fields)
        offset, size = _number(index, fields, 4), _number(index, fields, 5)
        dtype = np.dtype(_DTYPES[kind])
        if size != math.prod(shape) * dtype.itemsize or offset + size > len(data[shard]):
            raise BundleError(
                f"{index}: {key} {list(shape)} should take bytes {offset} to {offset + size} of a data file of "
                f"{len(data[shard])} bytes; the files do not belong together or are cut off. Copy them again."
            )
        tensors[key] = np.frombuffer(data[shard], dtype, math.prod(shape), offset).reshape(shape).copy()
    return tensors


def _table(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield keys and values of a sorted table."""
    if not path.is_file():
        raise FileNotFoundError(f"no TensorFlow checkpoint index at {path}.")
    data = path.read_bytes()
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise BundleError(f"{path} is no TensorFlow checkpoint index, or is cut off; copy it again.")
    try:
        footer = data[-_FOOTER:]
        _, at = _handle(footer, 0)  # of the meta index, which is empty
        handle, _ = _handle(footer, at)
        for _, value in _block(path, data, handle):
            for key, entry in _block(path, data, _handle(value, 0)[0]):
                yield key.decode(), entry
    except (IndexError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged ({type(error).__name__}); copy it again.") from error


def _block(path: Path, data: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    offset, size = handle
    if offset + size + _TRAILER > len(data) or size < 4:
        raise BundleError(f"{path} is damaged: a block of {size} bytes at {offset} is not in its {len(data)} bytes.")
    if data[offset + size]:
        raise BundleError(
            f"{path} is compressed (type {data[offset + size]}), which TensorFlow does not do by itself and is not "
            "read; write it anew with tf.train.Checkpoint."
        )
    block = data[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # restart points are not needed to read everything
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise BundleError(f"{path} is damaged: an entry reaches over the end of its block.")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(path: Path, message: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protocol buffer by number."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            value: int | bytes
            if tag & 7 == _VARINT:
                value, at = _varint(message, at)
            elif tag & 7 == _BYTES:
                length, at = _varint(message, at)
                value, at = message[at : at + length], at + length
            elif tag & 7 in (_FIXED32, _FIXED64):
                width = 4 if tag & 7 == _FIXED32 else 8
                value, at = int.from_bytes(message[at : at + width], "little"), at + width
            else:
                raise BundleError(f"{path} is damaged: an entry has the wire type {tag & 7}.")
            fields.setdefault(tag >> 3, []).append(value)
    except IndexError as error:
        raise BundleError(f"{path} is damaged: an entry is cut off.") from error
    return fields


def _number(path: Path, fields: dict[int, list[int | bytes]], field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise BundleError(f"{path} is damaged: field {field} of an entry is no number.")
    return value


def _shape(path: Path, fields: dict[int, list[int | bytes]]) -> tuple[int, ...]:
    sizes = []
    for message in fields.get(2, [b""]):
        for dimension in _fields(path, message if isinstance(message, bytes) else b"").get(2, []):
            sizes.append(_number(path, _fields(path, dimension if isinstance(dimension, bytes) else b""), 1))
    return tuple(sizes)
