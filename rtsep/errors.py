"""Every error rtsep raises on purpose.

::

    RtsepError                     exit code 1
    ├── UsageError                 2   a value the caller chose is not allowed
    │   └── StemNotFoundError      2   no stem of that name in the model
    ├── AudioFileError             1   a file that cannot be read or written
    ├── QueryError                 1   a query, or the recording it is learnt from, that cannot be used
    ├── MidiFileError              1   a MIDI file that cannot be read, used or written
    ├── ControlError               1   a control surface, or a setup file, that cannot be used
    ├── FiguresError               1   a file of measured figures that cannot be read
    ├── PluginError                1   a plugin that is not there, cannot be loaded, or does not fit
    ├── DeviceError                3   an audio device
    │   ├── DeviceNotFoundError    3   nothing matches the index or name
    │   ├── DeviceAmbiguousError   3   more than one device matches
    │   ├── DeviceBusyError        3   the device refused to open
    │   ├── DeviceLostError        3   the device vanished while it ran
    │   └── MidiSystemError        3   there is no MIDI system, or it does not answer
    ├── ModelError                 4   a model file
    │   ├── ModelNotFoundError     4   no such name or path
    │   ├── ModelFileError         4   not ONNX, truncated, unreadable
    │   ├── MetadataError          4   metadata missing, unknown or malformed
    │   ├── ContractVersionError   4   another version of the contract
    │   ├── GraphError             4   a tensor missing, misnamed or of a wrong shape
    │   ├── StateMismatchError     4   state_in and state_out do not pair up
    │   └── ProviderError          4   the execution provider asked for was not obtained
    ├── DeadlineError              5   hops were late and ``--strict`` was given
    └── EngineError                1   the engine process failed

A message says what happened, with which value, what is allowed, and what to run next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RtsepError(Exception):
    """Base of all errors; ``exit_code`` is what the command line exits with."""

    exit_code = 1


class UsageError(RtsepError):
    """A value the caller chose is not allowed."""

    exit_code = 2


class StemNotFoundError(UsageError):
    """The model has no stem of that name."""


class AudioFileError(RtsepError):
    """An audio file cannot be read or written."""


class QueryError(RtsepError):
    """A query, or the recording it is to be learnt from, cannot be used."""


class MidiFileError(RtsepError):
    """A MIDI file cannot be read, holds nothing of use, or cannot be written."""


class ControlError(RtsepError):
    """A port for control surfaces cannot be opened, or a setup file cannot be read or written."""


class FiguresError(RtsepError):
    """A file of measured figures is missing, of another schema, or malformed."""


class PluginError(RtsepError):
    """A plugin is not there, crashes, hangs, cannot be loaded, or does not fit."""


class DeviceError(RtsepError):
    """An audio device cannot be used."""

    exit_code = 3


class DeviceNotFoundError(DeviceError):
    """No device matches the index or part of a name."""


class DeviceAmbiguousError(DeviceError):
    """More than one device matches part of a name."""


class DeviceBusyError(DeviceError):
    """The device exists and refused to open."""


class DeviceLostError(DeviceError):
    """The device stopped delivering blocks while it ran."""


class MidiSystemError(DeviceError):
    """There is no MIDI system to talk to, or it does not answer."""


class ModelError(RtsepError):
    """A model file cannot be used."""

    exit_code = 4


class ModelNotFoundError(ModelError):
    """No model of that name, no file at that path."""


class ModelFileError(ModelError):
    """The file is not an ONNX graph, is truncated, or cannot be read."""


class MetadataError(ModelError):
    """The ``rtsep`` metadata is missing, malformed, or has unknown or missing keys."""


class ContractVersionError(ModelError):
    """The model was exported for another version of the contract."""


class GraphError(ModelError):
    """A graph tensor is missing, misnamed, of a wrong shape or type."""


class StateMismatchError(GraphError):
    """A ``state_in`` has no ``state_out`` of the same shape and type, or the reverse."""


class ProviderError(ModelError):
    """The execution provider that was asked for was not obtained."""


class DeadlineError(RtsepError):
    """Hops were late and the caller asked for none to be."""

    exit_code = 5


class EngineError(RtsepError):
    """The engine process failed or did not answer."""


def suggest(wrong: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(wrong, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
