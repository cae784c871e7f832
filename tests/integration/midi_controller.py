"""A MIDI controller on a JACK server: the client in midi_sender.c, and what turns its knobs."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.integration.jack import JackServer


@functools.cache
def _program() -> Path:
    source = Path(__file__).with_name("midi_sender.c")
    program = Path(tempfile.mkdtemp(prefix="rtsep-midi-")) / "sender"
    subprocess.run(["cc", "-O1", "-o", str(program), str(source), "-l:libjack.so.0"], check=True)
    atexit.register(shutil.rmtree, program.parent, ignore_errors=True)
    return program


class Controller:
    """A box of knobs: a JACK client in C."""

    def __init__(self, server: JackServer, name: str = "knobs") -> None:
        self.port = f"{name}:output"
        self._process = subprocess.Popen(
            [str(_program()), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        server.wait_for_port(self.port)

    def turn(self, *messages: tuple[int, ...]) -> None:
        assert self._process.stdin is not None
        line = ", ".join(" ".join(f"{byte:02x}" for byte in message) for message in messages)
        self._process.stdin.write(f"{line}\n".encode())

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
