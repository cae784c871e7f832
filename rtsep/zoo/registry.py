"""The models shipped in the wheel, and where a model's name leads to.

A model is three files: ``NAME.onnx``, its card ``NAME.json`` and the golden pair ``NAME.golden.npz``. One that
separates by query has two graphs more, ``NAME.query.onnx`` and ``NAME.synth.onnx``.
Listing and resolving load neither NumPy nor ONNX Runtime; :func:`verify` does.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsep.contract import ModelInfo
from rtsep.errors import MetadataError, ModelFileError, ModelNotFoundError, suggest
from rtsep.inference.onnx_file import read_info
from rtsep.strict_json import load_object, read_fields

__all__ = [
    "ALIASES",
    "COMPANIONS",
    "GOLDEN_TOLERANCE",
    "ModelCard",
    "Verification",
    "ZooEntry",
    "companions_of",
    "list_models",
    "read_info",
    "resolve",
    "verify",
]

ALIASES = {
    "default": "bandsplit-low",
    "live": "bandsplit-live",
    "low": "bandsplit-low",
    "openunmix": "openunmix-low",
    "cunet": "cunet-low",
    "metatasnet": "metatasnet-low",
    "msi": "msi-low",
}
"""Other names of shipped models."""

GOLDEN_TOLERANCE = 1e-4
"""Largest absolute difference, full scale 1.0, that :func:`verify` accepts between machines."""

COMPANIONS = ("query", "synth")
"""Kinds of graphs that may stand beside a model, as ``NAME.KIND.onnx``; see ``docs/queries.md``."""

_FOLDER = Path(__file__).resolve().parent
_BESIDE = tuple(f".{kind}" for kind in COMPANIONS)


@dataclass(frozen=True)
class ModelCard:
    """What stands beside a model in ``NAME.json``; what a host needs to run it is in the file itself.

    Parameters
    ----------
    name : str
        As in the metadata of the model.
    sha256 : str
        Hash of the ``.onnx`` file, lower-case hexadecimal.
    size_bytes : int
        Size of the ``.onnx`` file.
    summary : str
        One line for a person who chooses a model.
    parity : dict
        Exported graph against PyTorch: ``max_abs_error`` (full scale 1.0), ``seconds``, ``samplerate``.
    benchmark : dict
        Step times where it was exported: ``machine`` and, per native rate, percentiles in ms and the RTF.
    training : dict
        Facts from the checkpoint, as training wrote them.
    """

    name: str
    sha256: str
    size_bytes: int
    summary: str
    parity: dict[str, Any]
    benchmark: dict[str, Any]
    training: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a card.

        Raises
        ------
        MetadataError
            The file is missing or unreadable, has an unknown or missing key, or a value of a wrong type.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MetadataError(
                f"The model card {path} cannot be read: {error}. It is written by: python -m export"
            ) from error
        what = f"The model card {path}"
        return read_fields(cls, load_object(text, what), what, special={})


@dataclass(frozen=True)
class ZooEntry:
    """One shipped model.

    Attributes
    ----------
    name : str
        File name without ``.onnx``; what :func:`resolve` takes.
    path, card_path, golden_path : pathlib.Path
        Its three files.
    aliases : tuple of str
        Its other names.
    """

    name: str
    path: Path
    aliases: tuple[str, ...]

    @property
    def card_path(self) -> Path:
        """The card beside the model."""
        return self.path.with_suffix(".json")

    @property
    def golden_path(self) -> Path:
        """The golden pair beside the model: ``audio`` [C, T] and ``stems`` [S, C, T] from the zero state."""
        return self.path.with_suffix(".golden.npz")

    @property
    def companions(self) -> tuple[str, ...]:
        """Which of `COMPANIONS` stand beside the model."""
        return companions_of(self.path)

    @property
    def card(self) -> ModelCard:
        """The card, read anew at every access; see `ModelCard.read` for what it raises."""
        return ModelCard.read(self.card_path)

    @property
    def info(self) -> ModelInfo:
        """The metadata, read anew at every access; see `read_info` for what it raises."""
        return read_info(self.path)


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found of a model that is in order.

    Attributes
    ----------
    name : str
        Of the entry.
    sha256 : str
        Of the file, equal to that of the card.
    hops : int
        Hops of the golden pair that were replayed.
    max_abs_error : float
        Largest absolute difference from the golden stems, full scale 1.0.
    """

    name: str
    sha256: str
    hops: int
    max_abs_error: float


def list_models(folder: Path | None = None) -> list[ZooEntry]:
    """Return the shipped models, by name.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where to look instead of the package.
    """
    found = sorted(path for path in (folder or _FOLDER).glob("*.onnx") if not path.stem.endswith(_BESIDE))
    return [ZooEntry(path.stem, path, _aliases_of(path.stem)) for path in found]


def companions_of(path: Path) -> tuple[str, ...]:
    """Return which of `COMPANIONS` stand beside a model file."""
    return tuple(kind for kind in COMPANIONS if path.with_suffix(f".{kind}.onnx").is_file())


def resolve(name_or_path: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """Return the file a model's name, alias or path stands for.

    Parameters
    ----------
    name_or_path : str or path
        ``"default"``, another alias, the name of a shipped model, or the path of a file. A string is a path
        when it has a folder in it or ends in ``.onnx``.
    folder : pathlib.Path, optional
        Where the shipped models are, instead of the package.

    Raises
    ------
    ModelNotFoundError
        There is no such model or file.
    """
    text = os.fspath(name_or_path)
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    is_path = not isinstance(name_or_path, str) or text.endswith(".onnx") or any(s in text for s in separators)
    if is_path:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ModelNotFoundError(_no_file(path))
        return path
    entries = {entry.name: entry.path for entry in list_models(folder)}
    name = text if text in entries else ALIASES.get(text, text)
    if name in entries:
        return entries[name]
    names = [*entries, *(alias for alias, target in ALIASES.items() if target in entries)]
    if text in ALIASES:
        why = f"The model {text!r} is {name!r}, and {name}.onnx is not in {folder or _FOLDER}."
    else:
        why = f"No model is named {text!r}.{suggest(text, names)}"
    known = f"Known are {', '.join(names)}, or the path of an .onnx file." if names else "None is shipped here."
    raise ModelNotFoundError(f"{why} {known} See: rtsep models list")


def verify(entry: ZooEntry) -> Verification:
    """Check a shipped model: its hash against the card, the contract, and the golden pair.

    Loads ONNX Runtime and runs the model on the CPU.

    Raises
    ------
    ModelFileError
        The file is not the one of the card, the golden pair is missing or does not fit, or the model computes
        something else than when it was exported.
    ModelError
        Whatever `StreamingSession` raises for a file that does not follow the contract.
    """
    card = entry.card
    digest = hashlib.sha256(_bytes_of(entry.path)).hexdigest()
    again = "Install rtsep again, or export the model again with: python -m export"
    if digest != card.sha256:
        raise ModelFileError(
            f"{entry.path} has the SHA-256 {digest}, and its card says {card.sha256}: "
            f"the file was changed or damaged. {again}"
        )
    if card.name != entry.info.name:
        raise ModelFileError(f"{entry.path} calls itself {entry.info.name!r}, and its card says {card.name!r}. {again}")

    import numpy as np

    from rtsep.inference.session import StreamingSession

    with StreamingSession(entry.path, provider="cpu") as session:
        audio, golden = _golden_pair(entry, session.info)
        hop = session.info.hop_samples
        error = 0.0
        hops = audio.shape[1] // hop
        for start in range(0, hops * hop, hop):
            stems = session.step(np.ascontiguousarray(audio[:, start : start + hop]))
            error = max(error, float(np.abs(stems - golden[:, :, start : start + hop]).max()))
    if error > GOLDEN_TOLERANCE:
        raise ModelFileError(
            f"{entry.path} differs from its golden stems by {error:.2e}; {GOLDEN_TOLERANCE:.0e} is allowed. {again}"
        )
    return Verification(entry.name, digest, hops, error)


def _aliases_of(name: str) -> tuple[str, ...]:
    return tuple(alias for alias, target in ALIASES.items() if target == name)


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; an .onnx file is needed. See: rtsep models list"
    try:
        neighbours = [str(neighbour) for neighbour in path.parent.glob("*.onnx")]
    except OSError:
        neighbours = []
    return f"No model file {path}.{suggest(str(path), neighbours)} See: rtsep models list"


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error


def _golden_pair(entry: ZooEntry, info: ModelInfo) -> tuple[Any, Any]:
    import zipfile
    import zlib

    import numpy as np

    try:
        # Opened here, since NumPy leaves the file open when it is damaged.
        with entry.golden_path.open("rb") as file, np.load(file, allow_pickle=False) as pair:
            audio, stems = pair["audio"], pair["stems"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(f"The golden pair {entry.golden_path} cannot be read: {error}.") from error
    samples = audio.shape[-1] if audio.ndim else 0
    fits = (
        audio.dtype == stems.dtype == np.float32
        and audio.shape == (info.channels, samples)
        and stems.shape == (len(info.stems), info.channels, samples)
        and samples >= info.hop_samples
        and samples % info.hop_samples == 0
    )
    if not fits:
        raise ModelFileError(
            f"The golden pair {entry.golden_path} holds audio {audio.dtype} {list(audio.shape)} and stems "
            f"{stems.dtype} {list(stems.shape)}, which do not fit the model's {info.channels} channels, "
            f"{len(info.stems)} stems and hop of {info.hop_samples}."
        )
    return audio, stems
