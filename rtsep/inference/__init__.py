"""ONNX Runtime behind the contract. Importing this package loads neither NumPy nor ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep.inference.session import StreamingSession

__all__ = ["StreamingSession"]


def __getattr__(name: str) -> Any:
    if name == "StreamingSession":
        from rtsep.inference.session import StreamingSession

        return StreamingSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
