"""MIDI out on a real JACK server: every note arrives, and none is left hanging whoever is killed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import DeviceAmbiguousError, DeviceNotFoundError
from rtsep.notes.messages import NoteMessage, StripMidi, default_strips
from rtsep.notes.output import MidiOutput
from rtsep.notes.ports import child_environment, probe
from tests.integration.jack import JackServer, need_tools
from tests.notes.midi_receiver import Heard, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
STRIPS = default_strips(["drums", "bass", "other", "vocals"])
IN = "midi-monitor:input"


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools("cc", packages="gcc libc6-dev")


class Dump:
    """A receiver in C, and what it printed."""

    def __init__(self, server: JackServer, path: Path, name: str = "midi-monitor") -> None:
        self.path, self.name = path, name
        with path.open("wb") as file:
            self.process = subprocess.Popen(
                [str(receiver()), name],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        server.clients.append(self.process)
        server.wait_for_port(f"{name}:input")

    def heard(self) -> Heard:
        lines = self.path.read_text().split("\n")[:-1]
        assert not any(line.startswith("lost") for line in lines)
        return Heard.of(bytes.fromhex(line) for line in lines)


@functools.cache
def receiver() -> Path:
    source = Path(__file__).with_name("midi_receiver.c")
    program = Path(tempfile.mkdtemp(prefix="rtsep-midi-")) / "receiver"
    subprocess.run(["cc", "-O1", "-o", str(program), str(source), "-l:libjack.so.0"], check=True)
    atexit.register(shutil.rmtree, program.parent, ignore_errors=True)
    return program


@pytest.fixture
def dump(server: JackServer, tmp_path: Path) -> Dump:
    return Dump(server, tmp_path / "dump.txt")


def connect(server: JackServer, output: MidiOutput, destination: str = IN) -> None:
    server.command("jack_connect", output.status.port, destination)
    wait_for(lambda: destination in output.status.connections)


@pytest.fixture
def output(server: JackServer, dump: Dump) -> Iterator[MidiOutput]:
    with MidiOutput("virtual", STRIPS) as opened:
        connect(server, opened)
        yield opened


def on(due: float, stem: int, pitch: int, velocity: int = 90) -> NoteMessage:
    return NoteMessage(due, stem, "on", pitch, velocity)


def off(due: float, stem: int, pitch: int) -> NoteMessage:
    return NoteMessage(due, stem, "off", pitch)


def hold_a_chord(output: MidiOutput, dump: Dump) -> None:
    now = time.monotonic()
    output.send([on(now, stem, 40 + 5 * k) for stem in range(4) for k in range(4)])
    wait_for(lambda: len(dump.heard().sounding) >= 16)


def assert_silent(dump: Dump, seconds: float = 3.0) -> None:
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: dump.heard().sounding == set(), seconds)
    time.sleep(0.1)
    assert dump.heard().sounding == set()


def test_every_note_arrives_in_order(output: MidiOutput, dump: Dump) -> None:
    rng = random.Random(5)
    begin = time.monotonic() + 0.1
    notes = []
    for k in range(400):
        stem, pitch = rng.randrange(4), rng.randrange(30, 90)
        notes += [on(begin + k / 150, stem, pitch, rng.randrange(1, 128)), off(begin + k / 150 + 0.004, stem, pitch)]
    output.send(notes)
    time.sleep(400 / 150 + 0.3)
    heard = dump.heard()
    channel = [strip.channel - 1 for strip in STRIPS]
    sent_on = [bytes((0x90 | channel[m.stem], m.pitch, m.velocity)) for m in notes if m.kind == "on"]
    assert [data for data in heard.messages if data[0] & 0xF0 == 0x90] == sent_on
    ends = list(heard.notes(0x80))
    assert len(ends) >= 400  # after an xrun of JACK's the last ones are said again
    assert set(ends) == {(channel[m.stem], m.pitch) for m in notes}
    assert heard.sounding == set()
    # What connects later is told the programs.
    assert {b"\xc0\x21", b"\xc1\x00", b"\xc2\x35"} <= set(heard.messages)
    assert output.status.dropped == 0


def test_closing_ends_every_note_before_the_controllers(output: MidiOutput, dump: Dump) -> None:
    hold_a_chord(output, dump)
    output.close()
    assert_silent(dump)
    messages = dump.heard().messages
    last_on = max(k for k, data in enumerate(messages) if data[0] & 0xF0 == 0x90)
    ending = messages[last_on + 1 :]
    assert {data[0] & 0xF0 for data in ending[:16]} == {0x80}
    quiet = [data for data in ending if data[0] & 0xF0 != 0x80]
    assert [data[:2] for data in quiet[0::3]] == [bytes((0xB0 | c, 64)) for c in (0, 1, 2, 9)]
    assert [data[:2] for data in quiet[1::3]] == [bytes((0xB0 | c, 123)) for c in (0, 1, 2, 9)]
    assert quiet[2::3] == [bytes((0xE0 | c, 0, 64)) for c in (0, 1, 2, 9)]


HOLDER = """
import sys, time
from rtsep.notes.messages import NoteMessage, default_strips
from rtsep.notes.output import MidiOutput
output = MidiOutput("midi-monitor", default_strips(["drums", "bass", "other", "vocals"]))
now = time.monotonic()
output.send([NoteMessage(now, stem, "on", 40 + 5 * k, 90) for stem in range(4) for k in range(4)])
output.send([NoteMessage(now + 0.3 + k / 100, 2, "on", 70 + k % 40, 90) for k in range(400)])
print(output.status.pid, flush=True)
time.sleep(60)
"""


def test_when_the_parent_is_killed_no_note_hangs(dump: Dump) -> None:
    parent = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, env=child_environment(), cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: len(dump.heard().sounding) > 16)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert_silent(dump)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the port process")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_the_port_process_is_killed_or_hangs_another_connects_and_ends_the_notes(
    output: MidiOutput, dump: Dump, how: signal.Signals
) -> None:
    name = output.status.port
    hold_a_chord(output, dump)
    os.kill(output.status.pid, how)
    wait_for(lambda: output.status.respawns == 1 and not output.status.dead)
    assert output.status.connections == (IN,)
    assert output.status.port == name
    assert_silent(dump)
    output.send([on(time.monotonic(), 1, 50)])
    wait_for(lambda: dump.heard().sounding == {(0, 50)})


def test_when_the_port_process_is_killed_again_while_it_comes_back(output: MidiOutput, dump: Dump) -> None:
    hold_a_chord(output, dump)
    for pause in (0.0, 0.1, 0.15, 0.2, 0.25, 0.3):
        pid = output.status.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: output.status.pid != pid)
        time.sleep(pause)
    wait_for(lambda: not output.status.dead)
    assert_silent(dump)
    assert output.status.connections == (IN,)


def test_when_jack_is_killed_the_caller_goes_on_and_comes_back_with_it(
    server: JackServer, output: MidiOutput, dump: Dump, tmp_path: Path
) -> None:
    hold_a_chord(output, dump)
    server.process.kill()
    server.process.wait()
    calls = []
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        began = time.monotonic()
        output.send([on(began, 1, 50), off(began, 1, 50)] * 5)
        calls.append(time.monotonic() - began)
        time.sleep(0.002)
    status = output.status
    assert status.dead
    assert status.connections == ()
    assert "JACK server" in status.problem
    calls.sort()
    assert calls[len(calls) // 2] < 0.001
    assert calls[-1] < 0.25  # where rtmidi itself would hang for ever
    dump.process.kill()
    with jack_server_again(server):
        again = Dump(server, tmp_path / "again.txt")
        wait_for(lambda: not output.status.dead, 15.0)
        wait_for(lambda: output.status.connections == (IN,), what="the connection it had")
        output.send([on(time.monotonic(), 1, 51)])
        wait_for(lambda: again.heard().sounding == {(0, 51)})
        output.close()
        assert_silent(again)


@contextlib.contextmanager
def jack_server_again(server: JackServer) -> Iterator[None]:
    """Start a server of the same name, as a person would after a crash."""
    words = ["jackd", *(["-R", "-P", "70"] if server.realtime else ["-r"]), "-n", server.name]
    words += ["-d", "dummy", "-r", str(server.samplerate), "-p", str(server.period)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_for(lambda: not subprocess.run(["jack_lsp"], capture_output=True, check=False).returncode)
        yield
    finally:
        for client in server.clients:
            client.kill()
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_when_jack_hangs_the_port_process_is_ended_and_the_notes_with_it(
    server: JackServer, output: MidiOutput, dump: Dump
) -> None:
    """A stopped server reads nothing: rtmidi fills its buffer and hangs with the interpreter locked."""
    hold_a_chord(output, dump)
    first = output.status.pid
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + 20.0
        while not output.status.dead and time.monotonic() < until:
            now = time.monotonic()
            output.send([on(now, 2, 60 + k) for k in range(10)] + [off(now, 2, 60 + k) for k in range(10)])
            assert time.monotonic() - now < 0.25
            time.sleep(0.01)
        assert output.status.dead
        assert not _runs(first)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_for(lambda: not output.status.dead and output.status.connections == (IN,), 30.0)
    assert_silent(dump)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_destination_that_comes_back_is_connected_again(
    server: JackServer, output: MidiOutput, dump: Dump, tmp_path: Path
) -> None:
    dump.process.kill()
    dump.process.wait()
    wait_for(lambda: output.status.missing == (IN,))
    again = Dump(server, tmp_path / "again.txt")
    wait_for(lambda: output.status.connections == (IN,))
    output.send([on(time.monotonic(), 1, 51)])
    wait_for(lambda: again.heard().sounding == {(0, 51)})
    server.command("jack_disconnect", output.status.port, IN)
    wait_for(lambda: output.status.connections == ())
    time.sleep(0.4)
    assert output.status.connections == output.status.missing == ()  # that was on purpose


def test_ports_are_found_by_part_of_their_names_and_changed(server: JackServer, dump: Dump, tmp_path: Path) -> None:
    second = Dump(server, tmp_path / "second.txt", "other-monitor")
    assert {port.name for port in probe() if port.direction == "out"} >= {IN, "other-monitor:input"}
    with pytest.raises(DeviceAmbiguousError, match="2 MIDI ports have 'monitor'"):
        MidiOutput("monitor", STRIPS)
    with pytest.raises(DeviceNotFoundError, match=f"'fluid'.*There are: .*{IN}"):
        MidiOutput("fluid", STRIPS)
    with MidiOutput("midi-mon", STRIPS) as output:
        assert output.status.port == IN
        hold_a_chord(output, dump)
        output.switch_port("nobody")
        wait_for(lambda: "No MIDI port has 'nobody'" in output.status.problem)
        assert_silent(dump)
        hold_a_chord(output, dump)
        output.switch_port("other-mon")
        wait_for(lambda: output.status.port == "other-monitor:input")
        assert dump.heard().sounding == set()
        hold_a_chord(output, second)
        os.kill(output.status.pid, signal.SIGKILL)
        wait_for(lambda: output.status.respawns == 1 and not output.status.dead)
        assert_silent(second)
        assert output.status.port == "other-monitor:input"
    assert len(dump.heard().sounding) == 0


@pytest.mark.slow
def test_ten_thousand_random_events_leave_no_note_hanging(server: JackServer, dump: Dump) -> None:
    """On, off, bend, mute, stop, swap, panic and 30 kills of the port process, some while it comes back."""
    rng = random.Random(20)
    kinds = ["on"] * 48 + ["off"] * 38 + ["bend"] * 8 + ["mute"] * 3 + ["swap"] * 2 + ["stop"]
    kills = set(rng.sample(range(200, 9_800), 30))
    begun = 0
    with MidiOutput("virtual", STRIPS) as output:
        connect(server, output)
        for k in range(10_000):
            now, stem = time.monotonic(), rng.randrange(4)
            due, pitch = now + rng.choice([0.0, 0.01, 0.07]), rng.randrange(40, 64)
            kind = rng.choice(kinds)
            if k in kills:
                if rng.random() < 0.8:
                    wait_for(lambda: not output.status.dead, 15.0)
                with contextlib.suppress(ProcessLookupError):  # otherwise it may be dead already, or just coming back
                    os.kill(output.status.pid, signal.SIGKILL)
            elif kind in ("on", "off"):
                output.send([NoteMessage(due, stem, kind, pitch, rng.randrange(1, 128))])  # type: ignore[arg-type]
                begun += kind == "on"
            elif kind == "bend":
                output.send([NoteMessage(due, stem, "bend", pitch, bend=rng.uniform(-2, 2))])
            elif kind == "mute":
                output.release(stem)
            elif kind == "swap":
                channel = rng.randrange(1, 7)
                output.set_strip(stem, StripMidi(STRIPS[stem].name, channel, mono=rng.random() < 0.3))
            else:
                output.release() if rng.random() < 0.9 else output.panic()
            time.sleep(rng.choice([0.0, 0.002, 0.004, 0.01]))
        wait_for(lambda: not output.status.dead, 15.0)
        status = output.status
        assert status.respawns >= 22
        assert status.connections == (IN,)
        time.sleep(0.5)
        output.close()
        assert_silent(dump)
        heard = dump.heard()
        assert len(list(heard.notes(0x90))) > 0.2 * begun
    assert dump.heard().sounding == set()


@pytest.fixture
def soundfont() -> Path:
    found = [Path("/usr/share/sounds/sf2/TimGM6mb.sf2"), Path("/usr/share/sounds/sf2/default-GM.sf2")]
    there = [path for path in found if path.exists()]
    if shutil.which("fluidsynth") is None or not there:
        text = "fluidsynth or its soundfont not installed; run: apt-get install -y fluidsynth timgm6mb-soundfont"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return there[0]


def test_a_synthesiser_plays_what_is_sent(server: JackServer, tmp_path: Path, soundfont: Path) -> None:
    options = {"audio.jack.autoconnect": 0, "midi.autoconnect": 0, "synth.sample-rate": server.samplerate}
    options["shell.port"] = 20_000 + os.getpid() % 20_000
    words = ["fluidsynth", "-q", "-i", "-s", "-a", "jack", "-m", "jack"]  # -s: it waits without a terminal
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    server.client(*words, str(soundfont))
    server.wait_for_port("fluidsynth-midi:midi_00", 20.0)
    with MidiOutput("fluidsynth", [StripMidi("flute", 1, 73)]) as output:
        capture = server.capture(tmp_path / "capture.wav", 4.0, "fluidsynth-midi:left")
        now = time.monotonic() + 0.3
        for k, pitch in enumerate((60, 64, 69)):
            output.send([on(now + 0.5 * k, 0, pitch, 110), off(now + 0.5 * k + 0.4, 0, pitch)])
        output.send([on(now + 1.5, 0, 72, 110)])  # never ended, apart from the end of everything
        time.sleep(2.2)
        output.close()
        audio = server.captured(capture, tmp_path / "capture.wav", 4.0)[:, 0]
    rate = server.samplerate
    first = int(np.flatnonzero(np.abs(audio) > 0.005)[0])
    for k, pitch in enumerate((60, 64, 69, 72)):
        begin = first + int((0.5 * k + 0.15) * rate)
        part = audio[begin : begin + rate // 5] * np.hanning(rate // 5)
        spectrum = np.abs(np.fft.rfft(part, 8 * len(part)))
        strongest = np.argmax(spectrum) * rate / (8 * len(part))
        octaves = np.log2(strongest / (440 * 2 ** ((pitch - 69) / 12)))
        assert abs(octaves - round(octaves)) < 0.04, (pitch, strongest)
    assert np.abs(audio[-rate // 4 :]).max() < 1e-3  # the one that was never ended is silent


def test_the_commands_list_watch_and_silence(server: JackServer, dump: Dump, output: MidiOutput) -> None:
    def rtsep(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rtsep", "midi", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=child_environment(), check=False)

    listed = json.loads(rtsep("list", "--json").stdout)
    assert {"name": IN, "api": "JACK", "direction": "out"} in listed
    assert {"name": output.status.port, "api": "JACK", "direction": "in"} in listed
    assert IN in rtsep("list").stdout
    watcher = subprocess.Popen(
        [sys.executable, "-m", "rtsep", "midi", "monitor", "--port", output.status.port, "--seconds", "4", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    wait_for(lambda: len(output.status.connections) == 2)
    output.send([on(time.monotonic(), 1, 60)])
    text, said = watcher.communicate(timeout=30)
    lines = [json.loads(line) for line in text.splitlines()]
    notes = [line for line in lines if line["kind"] == "note on"]
    assert [(line["channel"], line["name"], line["velocity"]) for line in notes] == [(1, "C4", 90)]
    assert "1 notes still sound: C4" in said
    assert dump.heard().sounding == {(0, 60)}
    for _ in range(3):  # what JACK gets in a cycle that it cuts short is lost; who panics presses again
        done = rtsep("panic", "--port", "midi-monitor", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0]["port"] == IN
        if len(set(dump.heard().notes(0x80))) == 16 * 128:
            break
    assert dump.heard().sounding == set()
    assert len(set(dump.heard().notes(0x80))) == 16 * 128
    wrong = rtsep("panic", "--port", "midi-moniter:input")
    assert wrong.returncode == 3
    assert "Did you mean 'midi-monitor:input'?" in wrong.stderr
