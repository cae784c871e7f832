"""A query: what a model learnt of one instrument from a recording, as a small file."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import MetadataError, QueryError, UsageError
from rtsep.strict_json import each, load_object, read_fields, read_integer

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo

FloatArray = NDArray[np.float32]

FORMAT = 1
KIND = "rtsep-query"
SUFFIX = ".query"
LIVE = "live from "
"""How the source of a query begins that was recorded from a device."""
CONTROL = "query"
"""Name of the control a query sets."""

_LARGEST_FILE = 16 << 20  # a query of the largest model is about 70 kB


@dataclass(frozen=True, eq=False)
class Query:
    """What a query encoder gave for a recording.

    Parameters
    ----------
    name : str
        For a person: the instrument.
    model : str
        Name of the model it is for.
    encoder_sha256 : str
        Of the query encoder's file; another encoder of the same model gives other numbers.
    samplerate : int
        The encoder's, in hertz.
    seconds : float
        Sound that was used.
    source : str
        File name or device of the recording.
    created_by : str
        Program and version.
    vector : array [D]
        The value of the control ``query``.
    timbre : tuple of arrays [C, F]
        What the synthesiser needs, level by level.
    """

    name: str
    model: str
    encoder_sha256: str
    samplerate: int
    seconds: float
    source: str
    created_by: str
    vector: FloatArray
    timbre: tuple[FloatArray, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the query as a file that is whole or absent.

        Raises
        ------
        QueryError
            The file cannot be written.
        """
        document = {
            "kind": KIND,
            "format": FORMAT,
            "name": self.name,
            "model": self.model,
            "encoder_sha256": self.encoder_sha256,
            "samplerate": self.samplerate,
            "seconds": self.seconds,
            "source": self.source,
            "created_by": self.created_by,
            "query": [float(value) for value in self.vector],
            "timbre": [
                {"shape": list(level.shape), "data": base64.b64encode(level.astype("<f4").tobytes()).decode("ascii")}
                for level in self.timbre
            ],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            write_whole(path, text.encode("utf-8"))
        except OSError as error:
            raise QueryError(f"{os.fspath(path)} cannot be written: {error.strerror}.") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Query:
        """Read a query file.

        Raises
        ------
        QueryError
            The file is missing, unreadable, no query, of another format, or damaged.
        """
        where = os.fspath(path)
        again = "Make one with: rtsep enroll RECORDING.wav -o NAME.query"
        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise QueryError(f"{where} cannot be read: {error.strerror}. {again}") from error
        try:
            text = data.decode("utf-8") if len(data) <= _LARGEST_FILE else ""
        except UnicodeDecodeError:
            text = ""
        if not text.lstrip().startswith("{"):
            raise QueryError(f"{where} is no query of rtsep. {again}")
        try:
            document = load_object(text, where)
            if document.get("kind") != KIND:
                raise QueryError(f"{where} is no query of rtsep (its kind is {document.get('kind')!r}). {again}")
            if document.get("format") != FORMAT:
                raise QueryError(
                    f"{where} has the query format {document.get('format')!r}; this rtsep reads {FORMAT}. {again}"
                )
            fields = read_fields(_Document, document, where, special={_LEVELS: each(_read_level)})
        except MetadataError as error:
            # The strict reader's messages end in a pointer to the contract of models.
            reason = str(error).removesuffix(" See docs/contract.md.")
            raise QueryError(f"{where} is damaged: {reason} {again}") from error
        for key, level in (("query", (fields.query,)), ("timbre", fields.timbre)):
            if not all(len(values) and (np.abs(values) <= np.finfo(np.float32).max).all() for values in level):
                raise QueryError(f"{where} is damaged: {key} is empty or not finite. {again}")
        return cls(
            fields.name, fields.model, fields.encoder_sha256, fields.samplerate, fields.seconds, fields.source,
            fields.created_by, np.array(fields.query, np.float32), fields.timbre,
        )  # fmt: skip

    def enroll_again(self, model: Path) -> str:
        """Say how to learn the same instrument for a model file."""
        source = "--live 5" if self.source.startswith(LIVE) else shlex.quote(self.source)
        target = shlex.quote(self.name + SUFFIX)
        return f"Enroll it again: rtsep enroll {source} --model {shlex.quote(str(model))} -o {target}"

    def check(self, info: ModelInfo, path: Path) -> None:
        """See to it that the query is for the model in the file `path`.

        Raises
        ------
        QueryError
            The model takes no query, or the query was learnt by another model or another encoder.
        """
        from rtsep.query.graphs import encoder_path, hash_of, models_with

        control = next((control for control in info.controls if control.name == CONTROL), None)
        if control is None:
            raise QueryError(
                f"The model {info.name} takes no query; {self.name!r} is for {self.model}: --model {self.model}. "
                f"{models_with('query')}"
            )
        again = self.enroll_again(path)
        if self.model != info.name:
            raise QueryError(f"The query {self.name!r} is for the model {self.model}, not for {info.name}. {again}")
        if control.shape != self.vector.shape:
            raise QueryError(
                f"The query {self.name!r} has {len(self.vector)} numbers, {info.name} takes {control.shape}. {again}"
            )
        encoder = encoder_path(path)
        if encoder.is_file() and hash_of(encoder) != self.encoder_sha256:
            raise QueryError(
                f"The query {self.name!r} was learnt by another version of {self.model} than {encoder}. {again}"
            )


def takes_query(info: ModelInfo) -> bool:
    """Whether a model separates by query."""
    return any(control.name == CONTROL for control in info.controls)


def controls_for(info: ModelInfo, path: Path, query: Query | None) -> dict[str, FloatArray]:
    """Return what a query sets in the model in the file `path`; nothing where the model takes none.

    Raises
    ------
    QueryError
        As `Query.check`.
    UsageError
        The model takes a query and there is none.
    """
    if query is not None:
        query.check(info, path)
        return {CONTROL: query.vector}
    if takes_query(info):
        raise UsageError(
            f"The model {info.name} separates what sounds like an example, and has none: --query NAME.query. "
            f"Make one with: rtsep enroll RECORDING.wav -o NAME{SUFFIX}"
        )
    return {}


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under another name and rename it, so that it is never seen half; OSError when that fails."""
    target = Path(path)
    part = target.with_name(target.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


_LEVELS = "tuple[FloatArray, ...]"


@dataclass(frozen=True)
class _Document:
    """The keys of the file."""

    kind: str
    format: int
    name: str
    model: str
    encoder_sha256: str
    samplerate: int
    seconds: float
    source: str
    created_by: str
    query: tuple[float, ...]
    timbre: tuple[FloatArray, ...]


@dataclass(frozen=True)
class _Level:
    shape: tuple[int, ...]
    data: str


def _read_level(key: str, value: Any) -> FloatArray:
    if not isinstance(value, dict):
        raise MetadataError(f"{key} is {type(value).__name__}; an object with shape and data is needed.")
    level = read_fields(_Level, value, key, prefix=f"{key}.", special={"tuple[int, ...]": each(read_integer)})
    try:
        data = base64.b64decode(level.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MetadataError(f"{key}.data is not base64: {error}.") from error
    if not _is_shape(level.shape) or len(data) != 4 * math.prod(level.shape):
        raise MetadataError(f"{key} holds {len(data)} bytes for the shape {list(level.shape)}.")
    return np.frombuffer(data, "<f4").reshape(level.shape).astype(np.float32)


def _is_shape(sizes: Iterable[int]) -> bool:
    sizes = tuple(sizes)
    return len(sizes) == 2 and min(sizes) >= 1
