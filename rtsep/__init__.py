"""Live music source separation.

Importing this package loads neither NumPy nor ONNX Runtime; the names below do when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.inference.session import StreamingSession
    from rtsep.offline import separate
    from rtsep.zoo.registry import list_models

    __version__: str

__all__ = ["Engine", "StreamingSession", "__version__", "list_models", "separate"]

_WHERE = {
    "Engine": "rtsep.engine.engine",
    "StreamingSession": "rtsep.inference.session",
    "list_models": "rtsep.zoo.registry",
    "separate": "rtsep.offline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    """Version of the installed package; of ``pyproject.toml`` in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rtsep")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        if not project.is_file():
            return "unknown"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
