"""The songs of a training file, packed into pieces of a limited size for another machine.

    python -m models.data.pack models/configs/bandsplit-low.toml -o pieces --piece-mb 55
    # there, in a checkout:
    for piece in pieces/*.tar; do tar -xf "$piece"; done
    python -m models.train packed/bandsplit-low.toml

Songs are whole in one piece, so pieces can be carried and unpacked in any order. Files that are compressed already are
taken as they are; others, MUSDB18's MP4 among them, become Opus, so that ffmpeg is not needed there. The first piece
holds the training file with its paths set to the unpacked folders.
"""

from __future__ import annotations

import argparse
import io
import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from models.data.readers import Audio, DataError, SongFiles, Source, find_songs, read_song

FOLDER = "packed"
_OPUS_RATE = 48_000  # the highest rate of Opus
_OPUS_LEVEL = 0.8  # about 110 kbit/s a stem
_COMPRESSED = (".ogg", ".opus", ".mp3")


def pack(config: Path, out: Path, piece_bytes: int) -> list[Path]:
    """Write the pieces.

    Parameters
    ----------
    config : Path
        A training file with ``[[source]]`` tables.
    out : Path
        Folder of the pieces; made when missing.
    piece_bytes : int
        The most a piece may hold.

    Returns
    -------
    list of Path
        ``piece-001.tar`` and so on.

    Raises
    ------
    DataError
        No sources, a song cannot be read, ``out`` holds pieces already, or one song alone is larger than a piece.
    """
    text = config.read_text()
    sources = [Source(**{**s, "exclude": tuple(s.get("exclude", ()))}) for s in tomllib.loads(text).get("source", [])]
    if not sources:
        raise DataError(f"{config} has no [[source]] tables, so there is nothing to pack.")
    out.mkdir(parents=True, exist_ok=True)
    if taken := sorted(out.glob("piece-*.tar*")):
        raise DataError(f"{taken[0]} is there already; give -o a new folder.")
    writer = _Pieces(out, piece_bytes)
    try:
        writer.add([(f"{FOLDER}/{config.name}", packed_config(text, sources).encode())])
        for source in sources:
            for song in find_songs(source):
                writer.add(list(_files(source, song)))
        writer.flush()
    except BaseException:
        for path in writer.paths:
            path.unlink(missing_ok=True)
        raise
    return writer.paths


def packed_config(text: str, sources: list[Source]) -> str:
    """Return a training file's text with every source at the place where its pieces are unpacked."""
    for source in sources:
        path = re.escape(source.path)
        text, found = re.subn(rf'(?m)^path\s*=\s*(["\']){path}\1', f'path = "{FOLDER}/{source.name}"', text)
        if not found:
            raise DataError(f"source '{source.name}': its path must be written as path = \"{source.path}\".")
    return re.sub(r'(?m)^kind\s*=\s*(["\'])musdb18\1', 'kind = "folders"', text)


def _files(source: Source, song: SongFiles) -> Iterator[tuple[str, bytes]]:
    decoded: dict[str, Audio] = {}
    if song.kind == "musdb18" or any(path.suffix.lower() not in _COMPRESSED for path in song.stems.values()):
        decoded = read_song(song, _OPUS_RATE)
    # Opus clips what is beyond full scale, which stems before mastering can be; one gain keeps their balance.
    peak = max((float(np.abs(audio).max()) for audio in decoded.values()), default=1.0)
    for stem, path in song.stems.items():
        name = song.name if song.kind == "solo" else f"{song.name}/{stem}"
        if decoded:
            yield f"{FOLDER}/{source.name}/{name}.ogg", _opus(decoded[stem] / max(1.0, peak))
        else:
            yield f"{FOLDER}/{source.name}/{name}{path.suffix.lower()}", path.read_bytes()


def _opus(audio: Audio) -> bytes:
    buffer = io.BytesIO()
    options = {"format": "OGG", "subtype": "OPUS", "compression_level": _OPUS_LEVEL}
    soundfile.write(buffer, audio.T, _OPUS_RATE, **options)
    return buffer.getvalue()


class _Pieces:
    """Tar files, the next begun when one is full."""

    def __init__(self, folder: Path, most: int) -> None:
        self.paths: list[Path] = []
        self._folder, self._most = folder, most
        self._waiting: list[tuple[str, bytes]] = []
        self._size = tarfile.RECORDSIZE  # a tar file's end, at most

    def add(self, files: list[tuple[str, bytes]]) -> None:
        """Add files that belong together."""
        # A member is a header and its content in whole blocks.
        size = sum(2 * tarfile.BLOCKSIZE + len(content) for _, content in files)
        if size + tarfile.RECORDSIZE > self._most:
            raise DataError(f"{files[0][0]} needs {size / 1e6:.1f} MB, more than a piece; give a larger --piece-mb.")
        if self._size + size > self._most:
            self.flush()
        self._waiting += files
        self._size += size

    def flush(self) -> None:
        """Write the piece."""
        self.paths.append(self._folder / f"piece-{len(self.paths) + 1:03d}.tar")
        with tarfile.open(self.paths[-1], "w") as tar:
            for name, content in self._waiting:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self._waiting, self._size = [], tarfile.RECORDSIZE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.data.pack", description="Pack a training file's songs.")
    parser.add_argument("config", type=Path, help="for example models/configs/bandsplit-low.toml")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pieces")
    parser.add_argument("--piece-mb", type=float, default=55.0, help="the most a piece may hold, in megabytes")
    arguments = parser.parse_args()
    try:
        paths = pack(arguments.config, arguments.out, int(1e6 * arguments.piece_mb))
    except (DataError, OSError) as error:
        raise SystemExit(f"{error}") from error
    for path in paths:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
