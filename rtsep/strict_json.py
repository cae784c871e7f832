"""JSON into frozen dataclasses, strict in both directions: every key known, none missing, every type right.

Used for the metadata of a model and for its card. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from rtsep.errors import MetadataError, suggest

_T = TypeVar("_T")
Reader = Callable[[str, Any], Any]
"""Takes the key (for messages) and the JSON value; returns the value of the field or raises MetadataError."""


def metadata_error(message: str) -> MetadataError:
    """Return the error for a document that does not follow the contract."""
    return MetadataError(f"{message} See docs/contract.md.")


def load_object(text: str, what: str) -> dict[str, Any]:
    """Parse one JSON object; repeated keys, NaN and infinity are refused.

    Parameters
    ----------
    text : str
        The document.
    what : str
        What it is, for messages.

    Raises
    ------
    MetadataError
        Not JSON, or not an object.
    """

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for key, value in pairs:
            if key in document:
                raise metadata_error(f"{what} has the key {key!r} twice.")
            document[key] = value
        return document

    def refuse_constant(constant: str) -> Any:
        raise metadata_error(f"{what} holds {constant}, which is not JSON.")

    try:
        document = json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise metadata_error(f"{what} is not JSON: {error}.") from error
    return read_object(what, document)


def read_fields(
    cls: type[_T], document: Mapping[str, Any], what: str, *, prefix: str = "", special: Mapping[str, Reader]
) -> _T:
    """Build a dataclass from a JSON object.

    Parameters
    ----------
    cls : type
        A dataclass whose annotations are strings (``from __future__ import annotations``).
    document : mapping
        The object.
    what, prefix : str
        What the document is and the path of the object in it, for messages.
    special : mapping of str to Reader
        Readers for annotations beyond the plain ones, by the annotation as written.

    Raises
    ------
    MetadataError
        A key is unknown or missing, or a value has the wrong type.
    """
    known = {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]
    for key in document:
        if key not in known:
            raise metadata_error(
                f"{what} has the unknown key {prefix + key!r}.{suggest(key, known)} Known are {', '.join(known)}."
            )
    for key in known:
        if key not in document:
            raise metadata_error(f"{what} has no key {prefix + key!r}.")
    # A field of a type that is in neither mapping is a programming error and fails at its first reading.
    readers = {**_PLAIN, **special}
    return cls(**{key: readers[kind](prefix + key, document[key]) for key, kind in known.items()})


def each(reader: Reader) -> Reader:
    """Return a reader of arrays, as tuples, whose items are read by `reader`."""

    def read(key: str, value: Any) -> tuple[Any, ...]:
        items = _typed(key, value, list, "an array")
        return tuple(reader(f"{key}[{index}]", item) for index, item in enumerate(items))

    return read


def or_null(reader: Reader) -> Reader:
    """Return a reader that takes null as None."""
    return lambda key, value: None if value is None else reader(key, value)


def read_integer(key: str, value: Any) -> int:
    """Return an integer; ``1.0`` and ``true`` are none."""
    return _typed(key, value, int, "an integer")


def read_number(key: str, value: Any) -> float:
    """Return a finite number."""
    try:
        number = float(_typed(key, value, float if isinstance(value, float) else int, "a number"))
    except OverflowError:
        number = math.inf
    # JSON's 1e999 is read as infinity.
    if not math.isfinite(number):
        raise metadata_error(f"{key} is {value}; a finite number is needed.")
    return number


def read_string(key: str, value: Any) -> str:
    """Return a string."""
    return _typed(key, value, str, "a string")


def read_object(key: str, value: Any) -> dict[str, Any]:
    """Return an object."""
    return _typed(key, value, dict, "an object")


def _typed(key: str, value: Any, kind: type[_T], wanted: str) -> _T:
    # bool is an int in Python and not in JSON.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise metadata_error(f"{key} is {_kind(value)}; {wanted} is needed.")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "an array"}
    return kinds.get(type(value), "an object")


_PLAIN: Mapping[str, Reader] = {
    "int": read_integer,
    "float": read_number,
    "str": read_string,
    "str | None": or_null(read_string),
    "tuple[int, ...]": each(read_integer),
    "tuple[float, ...]": each(read_number),
    "tuple[str, ...]": each(read_string),
    "dict[str, Any]": read_object,
}
