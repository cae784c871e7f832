"""Transcribers for takes with notes."""

from tests.notes.conftest import transcribers

__all__ = ["transcribers"]
