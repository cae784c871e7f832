"""The engine: a process of its own that keeps audio flowing, and its control side."""

from rtsep.engine.config import EngineConfig
from rtsep.engine.engine import Engine

__all__ = ["Engine", "EngineConfig"]
