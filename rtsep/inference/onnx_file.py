"""The metadata of an ONNX file, read without ONNX Runtime and without reading the weights.

An ONNX file is one protobuf message. Its fields are walked over by their lengths; only ``metadata_props``
is read. This also tells a file that was cut short from a good one before ONNX Runtime sees it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from rtsep.contract import METADATA_KEY, ModelInfo
from rtsep.errors import MetadataError, ModelError, ModelFileError, ModelNotFoundError

# Field numbers of ModelProto and StringStringEntryProto in onnx.proto.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Read the metadata of a model; costs a few reads, whatever the size of the file.

    Parameters
    ----------
    path : path
        An ``.onnx`` file.

    Returns
    -------
    ModelInfo

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    ModelFileError
        The file cannot be read, is not ONNX, or is truncated.
    MetadataError, ContractVersionError
        The metadata is missing, malformed, or of another contract version.
    """
    properties = read_properties(path)
    if METADATA_KEY not in properties:
        have = f" (it has {', '.join(sorted(properties))})" if properties else ""
        raise MetadataError(
            f"{os.fspath(path)} is an ONNX file without the {METADATA_KEY!r} metadata{have}, so it "
            "does not follow the streaming contract. Export it with: python -m export. See docs/contract.md."
        )
    try:
        return ModelInfo.from_json(properties[METADATA_KEY])
    except ModelError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def read_properties(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the ``metadata_props`` of an ONNX file.

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    ModelFileError
        The file cannot be read, is not ONNX, or is truncated.
    """
    path = Path(path)
    properties: dict[str, str] = {}
    seen = set()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                field, wire = _tag(file)
                seen.add(field)
                if wire == _BYTES:
                    length = _varint(file)
                    if file.tell() + length > size:
                        raise _Malformed(f"{file.tell() + length - size} bytes are missing at its end")
                    if field == _METADATA_PROPS:
                        key, value = _entry(file, file.tell() + length)
                        properties[key] = value
                    else:
                        file.seek(length, os.SEEK_CUR)
                else:
                    _skip(file, wire)
            if not {_IR_VERSION, _GRAPH} <= seen:
                raise _Malformed("it holds no graph")
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"No model file {os.fspath(path)}. See: rtsep models list") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{os.fspath(path)} cannot be read: {error}.") from error
    except _Malformed as error:
        raise ModelFileError(
            f"{os.fspath(path)} is truncated or not an ONNX file: {error}. Copy or export it again; "
            "shipped models are checked with: rtsep models verify"
        ) from error
    return properties


class _Malformed(Exception):
    """The bytes are no protobuf message."""


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _Malformed("it ends within a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _Malformed("a length is longer than ten bytes")


def _tag(file: BinaryIO) -> tuple[int, int]:
    tag = _varint(file)
    field, wire = tag >> 3, tag & 7
    if field == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
        raise _Malformed(f"there is no field {field} of wire type {wire} in a protobuf message")
    return field, wire


def _skip(file: BinaryIO, wire: int) -> None:
    if wire == _VARINT:
        _varint(file)
    elif len(file.read(8 if wire == _FIXED64 else 4)) < (8 if wire == _FIXED64 else 4):
        raise _Malformed("it ends within a field")


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    texts = {_ENTRY_KEY: "", _ENTRY_VALUE: ""}
    while file.tell() < end:
        field, wire = _tag(file)
        if wire != _BYTES:
            _skip(file, wire)
            continue
        length = _varint(file)
        if file.tell() + length > end:
            raise _Malformed("a metadata entry is longer than its field")
        data = file.read(length)
        if field in texts:
            texts[field] = data.decode("utf-8")
    return texts[_ENTRY_KEY], texts[_ENTRY_VALUE]
