"""A real JACK server without hardware and its clients, for tests and for benchmarks/live_jack.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Audio = NDArray[np.float32]

TOOLS = ("jackd", "jack_lsp", "jack_connect", "ecasound", "jack_capture")
INSTALL = "apt-get install -y --no-install-recommends jackd2 libportaudio2 ecasound jack-capture"


def missing_tools() -> list[str]:
    """Return the programs that are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def need_tools(*programs: str, packages: str = "") -> None:
    """Skip the test without JACK's tools and these programs; with ``CI`` set it fails: there they are installed."""
    import pytest  # benchmarks use this file, too

    if missing := [*missing_tools(), *(program for program in programs if shutil.which(program) is None)]:
        text = f"{', '.join(missing)} not installed; run: {INSTALL} {packages}".rstrip()
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)


@dataclass
class JackServer:
    """A running ``jackd -d dummy`` with a name of its own, so that several can run side by side."""

    name: str
    samplerate: int
    period: int
    realtime: bool
    process: subprocess.Popen[bytes]
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str) -> str:
        """Run a JACK tool to its end and return what it printed.

        jackd 1.9.21 now and then leaves a new client hanging when another one comes at the same moment: tried again.
        """
        for _ in range(4):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return subprocess.run(words, capture_output=True, text=True, timeout=3, check=True).stdout
        raise TimeoutError(f"{' '.join(words)} hung four times")

    def ports(self) -> list[str]:
        return self.command("jack_lsp").split()

    def wait_for_port(self, port: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while port not in self.ports():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no JACK port {port}; there are {self.ports()}")
            time.sleep(0.1)

    def client(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a client in the background.

        Each in a session of its own: ecasound that is ended while JACK hangs finds its "engine is stuck, sending
        SIGKILL", and sends it to the whole process group, tests and shell included.
        """
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.clients.append(process)
        return process

    def play(self, path: Path, to: str = "rtsep") -> subprocess.Popen[bytes]:
        """Play a float WAV into a client."""
        process = self.client(
            "ecasound",
            "-q",
            "-G:jack,ecasound,notransport",
            f"-f:f32_le,2,{self.samplerate}",
            "-i",
            str(path),
            "-o",
            f"jack,{to}",
        )
        self.wait_for_port("ecasound:out_2")
        return process

    def capture(self, path: Path, seconds: float, *ports: str) -> subprocess.Popen[bytes]:
        """Record ports to a float WAV, one channel each."""
        words = ["jack_capture", "--daemon", "-c", str(len(ports)), "-d", f"{seconds:.2f}", "-f", "wav", "-b", "FLOAT"]
        for port in ports:
            words += ["-p", port]
        process = self.client(*words, str(path))
        self.wait_for_port("jack_capture:input1")
        return process

    def captured(self, process: subprocess.Popen[bytes], path: Path, seconds: float) -> Audio:
        """Return what `capture` recorded, [T, C], when it is done.

        After one of its clients was frozen, jackd now and then never answers a client that wants to leave; the file is
        closed by then.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds + 3)
        if process.poll() is None:
            process.kill()
            process.wait()
        audio: Audio = soundfile.read(path, dtype="float32", always_2d=True)[0]
        if len(audio) < 0.9 * seconds * self.samplerate:
            raise RuntimeError(f"jack_capture recorded {len(audio)} frames in {seconds} s")
        return audio

    def stop(self) -> None:
        for process in [*reversed(self.clients), self.process]:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()


def _forget_dead_servers() -> None:
    """Free the registry of servers that were killed: it has eight places, and after that no server starts any more."""
    for process in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if process.read_text().strip() in ("jackd", "jackdbus"):
                return
    for left in Path("/dev/shm").glob("jack[-_]*"):
        with contextlib.suppress(OSError):
            left.unlink()


@contextlib.contextmanager
def jack_server(samplerate: int = 48_000, period: int = 128) -> Iterator[JackServer]:
    """Run a server; clients of this process and its children find it through the environment."""
    _forget_dead_servers()
    name = f"rtsep-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    realtime = os.geteuid() == 0
    words = ["jackd", *(["-R", "-P", "70"] if realtime else ["-r"]), "-n", name]
    words += ["-d", "dummy", "-r", str(samplerate), "-p", str(period)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {key: os.environ.get(key) for key in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")}
    os.environ["JACK_DEFAULT_SERVER"], os.environ["JACK_NO_START_SERVER"] = name, "1"
    server = JackServer(name, samplerate, period, realtime, process)
    try:
        deadline = time.monotonic() + 10
        while subprocess.run(["jack_lsp"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"jackd did not start: {' '.join(words)}")
            time.sleep(0.1)
        yield server
    finally:
        server.stop()
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def lags(reference: Audio, delayed: Audio, *, expected: int, search: int = 4000, segment: int = 4096) -> list[int]:
    """Return the lag of `delayed` behind `reference` (both [T]) in frames, by cross-correlation, segment by segment.

    -1 stands for a segment in which they do not correlate (below 0.9). Silent parts of the reference are left out.
    """
    found = []
    longest = expected + search
    for start in range(0, len(reference) - segment - longest, segment):
        part = reference[start : start + segment]
        if part.std() < 0.01:
            continue
        window = delayed[start : start + segment + longest]
        product = np.correlate(window.astype(np.float64), part.astype(np.float64), "valid")
        lag = int(np.argmax(np.abs(product)))
        there = window[lag : lag + segment]
        scale = float(np.linalg.norm(part) * np.linalg.norm(there)) or 1.0
        found.append(lag if abs(product[lag]) / scale > 0.9 else -1)
    return found


def write_noise(path: Path, seconds: float, samplerate: int = 48_000, level: float = 0.1) -> Audio:
    """Write seeded stereo noise as a float WAV and return it [T, 2]."""
    rng = np.random.default_rng(11)
    audio = (level * rng.standard_normal((int(seconds * samplerate), 2))).astype(np.float32)
    soundfile.write(path, audio, samplerate, subtype="FLOAT")
    return audio


@contextlib.contextmanager
def cpu_hogs(count: int = 2) -> Iterator[None]:
    """Keep `count` cores busy with processes of normal priority."""
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
