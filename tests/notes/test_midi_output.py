"""The port process, without any MIDI system: notes go to a file that is read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtsep.engine.wire import child_environment
from rtsep.errors import DeviceError, DeviceNotFoundError, MidiSystemError, UsageError
from rtsep.notes.messages import NoteMessage, StripMidi, default_strips
from rtsep.notes.output import MidiOutput
from rtsep.notes.ports import PortInfo, find_port, open_output
from tests.notes.midi_receiver import Heard, wait_for

ROOT = Path(__file__).resolve().parents[2]
STRIPS = default_strips(["drums", "bass", "other", "vocals"])


def read(path: Path) -> list[tuple[float, bytes]]:
    """Times and bytes of a log port's file; a line that is being written is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [(entry["t"], bytes.fromhex(entry["bytes"])) for entry in map(json.loads, lines)]


def heard(path: Path) -> Heard:
    return Heard.of(data for _, data in read(path))


def on(due: float, stem: int, pitch: int) -> NoteMessage:
    return NoteMessage(due, stem, "on", pitch, 90)


def off(due: float, stem: int, pitch: int) -> NoteMessage:
    return NoteMessage(due, stem, "off", pitch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "midi.jsonl"


@pytest.fixture
def output(path: Path) -> Iterator[MidiOutput]:
    with MidiOutput(f"log:{path}", STRIPS) as opened:
        yield opened


def children() -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == os.getpid() and words[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_it_begins_with_silence_and_programs_and_plays_in_order_of_time(output: MidiOutput, path: Path) -> None:
    now = time.monotonic()
    output.send([off(now + 0.2, 1, 60), on(now + 0.3, 0, 36)])  # that note was never begun
    output.send([on(now + 0.1, 2, 70), on(now + 0.05, 1, 60), off(now + 0.2, 1, 60), off(now + 0.25, 2, 70)])
    wait_for(lambda: len(list(heard(path).notes(0x90))) == 3)
    output.close()
    messages = read(path)
    assert [data for _, data in messages[:80]].count(b"\xb0\x7b\x00") == 1
    programs = [data for _, data in messages[80:83]]
    assert programs == [b"\xc0\x21", b"\xc1\x00", b"\xc2\x35"]
    played = [(at, data) for at, data in messages[83:] if data[0] & 0xE0 == 0x80]
    assert [data[:2] for _, data in played] == [
        b"\x90\x3c",
        b"\x91\x46",
        b"\x80\x3c",
        b"\x81\x46",
        b"\x99\x24",
        b"\x89\x24",
    ]
    # The last one ended with the output.
    assert all(at >= now + due for (at, _), due in zip(played, (0.05, 0.1, 0.2, 0.25, 0.3), strict=False))
    assert heard(path).sounding == set()
    assert [data for _, data in messages[-3:]] == [b"\xb9\x40\x00", b"\xb9\x7b\x00", b"\xe9\x00\x40"]


def test_release_of_a_stem_forgets_its_future_and_no_others(output: MidiOutput, path: Path) -> None:
    now = time.monotonic()
    output.send([on(now, 1, 40), on(now, 2, 60), on(now + 0.2, 1, 41), on(now + 0.2, 2, 61)])
    wait_for(lambda: len(heard(path).sounding) == 2)
    output.release(1)
    wait_for(lambda: heard(path).sounding == {(1, 60), (1, 61)})
    assert (0, 41) not in set(heard(path).notes(0x90))
    output.release()
    wait_for(lambda: heard(path).sounding == set())


def test_another_strip_releases_the_old_channel_first(output: MidiOutput, path: Path) -> None:
    output.send([on(time.monotonic(), 1, 40)])
    wait_for(lambda: heard(path).sounding == {(0, 40)})
    output.set_strip(1, StripMidi("bass", 5, 38, transpose=12))
    output.send([on(time.monotonic(), 1, 40)])
    wait_for(lambda: heard(path).sounding == {(4, 52)})
    assert b"\xc4\x26" in heard(path).messages
    assert output.strips[1].channel == 5


def test_another_port_gets_the_notes_after_the_first_is_silent(output: MidiOutput, path: Path, tmp_path: Path) -> None:
    output.send([on(time.monotonic(), 1, 40)])
    wait_for(lambda: heard(path).sounding == {(0, 40)})
    output.switch_port(f"log:{tmp_path / 'second.jsonl'}")
    wait_for(lambda: output.status.port.endswith("second.jsonl"))
    assert heard(path).sounding == set()
    output.send([on(time.monotonic(), 1, 41)])
    wait_for(lambda: heard(tmp_path / "second.jsonl").sounding == {(0, 41)})
    output.switch_port(f"log:{tmp_path / 'none' / 'x'}")
    wait_for(lambda: "cannot be logged" in output.status.problem)
    assert heard(tmp_path / "second.jsonl").sounding == set()
    output.send([on(time.monotonic(), 1, 42)])
    wait_for(lambda: heard(tmp_path / "second.jsonl").sounding == {(0, 42)})


def test_a_port_left_while_it_is_dead_is_silenced_first(output: MidiOutput, path: Path, tmp_path: Path) -> None:
    output.send([on(time.monotonic(), 1, 40)])
    wait_for(lambda: heard(path).sounding == {(0, 40)})
    os.kill(output.status.pid, signal.SIGKILL)
    wait_for(lambda: output.status.dead)
    output.switch_port(f"log:{tmp_path / 'second.jsonl'}")
    wait_for(lambda: output.status.port.endswith("second.jsonl"))
    assert heard(path).sounding == set()


def test_panic_sweeps_the_channels_that_were_used(output: MidiOutput, path: Path) -> None:
    output.send([on(time.monotonic(), 3, 60)])
    wait_for(lambda: heard(path).sounding)
    output.panic()
    wait_for(lambda: heard(path).messages[-1] == b"\xef\x00\x40")
    assert {note for channel, note in heard(path).notes(0x80) if channel == 2} == set(range(128))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_port_process_that_dies_or_hangs_is_replaced_and_its_notes_end(
    output: MidiOutput, path: Path, how: signal.Signals
) -> None:
    first = output.status.pid
    output.send([on(time.monotonic(), 1, 40), on(time.monotonic(), 0, 36)])
    wait_for(lambda: len(heard(path).sounding) == 2)
    os.kill(first, how)
    wait_for(lambda: output.status.respawns == 1 and not output.status.dead)
    assert heard(path).sounding == set()
    assert output.status.pid != first
    assert ("signal 9" in output.status.problem) == (how == signal.SIGKILL)
    output.send([on(time.monotonic(), 1, 41)])
    wait_for(lambda: heard(path).sounding == {(0, 41)})


def test_an_end_that_only_just_went_out_is_sent_again_after_a_kill(output: MidiOutput, path: Path) -> None:
    now = time.monotonic()
    output.send([on(now, 1, 40), off(now + 0.01, 1, 40)])
    wait_for(lambda: list(heard(path).notes(0x80)))
    os.kill(output.status.pid, signal.SIGKILL)
    wait_for(lambda: output.status.respawns == 1 and not output.status.dead)
    assert list(heard(path).notes(0x80)).count((0, 40)) == 2


def test_closing_while_the_port_process_is_dead_ends_the_notes_all_the_same(path: Path) -> None:
    output = MidiOutput(f"log:{path}", STRIPS)
    output.send([on(time.monotonic(), 1, 40)])
    wait_for(lambda: heard(path).sounding)
    os.kill(output.status.pid, signal.SIGKILL)
    output.close()
    assert heard(path).sounding == set()


HOLDER = """
import sys, time
from rtsep.notes.messages import NoteMessage, default_strips
from rtsep.notes.output import MidiOutput
output = MidiOutput(sys.argv[1], default_strips(["drums", "bass", "other", "vocals"]))
now = time.monotonic()
output.send([NoteMessage(now, stem, "on", 40 + 5 * k + stem, 90) for stem in range(4) for k in range(4)])
output.send([NoteMessage(now + 0.5 + k / 20, 2, "on", 70 + k, 90) for k in range(40)])
print(output.status.pid, flush=True)
while True:
    time.sleep(60)
"""


def test_when_the_parent_is_killed_all_notes_end_and_nothing_is_left(path: Path) -> None:
    before = {p.name for p in Path("/dev/shm").glob("rtsep-midi-*")}
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"log:{path}"], stdout=subprocess.PIPE, env=child_environment(), cwd=ROOT
    )
    assert parent.stdout is not None
    port_pid = int(parent.stdout.readline())
    wait_for(lambda: len(heard(path).sounding) >= 18)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: heard(path).sounding == set())
    wait_for(lambda: not Path(f"/proc/{port_pid}").exists())
    assert {p.name for p in Path("/dev/shm").glob("rtsep-midi-*")} <= before


def test_a_flood_is_bounded_and_loses_no_end(path: Path) -> None:
    with MidiOutput(f"log:{path}", STRIPS, queue_limit=64) as output:
        os.kill(output.status.pid, signal.SIGSTOP)  # nobody reads: the pipe and the queue fill
        longest = 0.0
        for k in range(60_000):
            pitch = k // 2 % 128
            message = on(time.monotonic(), 2, pitch) if k % 2 == 0 else off(time.monotonic(), 2, pitch)
            began = time.monotonic()
            output.send([message])
            longest = max(longest, time.monotonic() - began)
        if output.status.respawns == 0:
            os.kill(output.status.pid, signal.SIGCONT)
        wait_for(lambda: not output.status.dead)
        assert output.status.dropped > 1000
        assert longest < 1.0  # a pipe that nobody reads would hold it for ever
    assert heard(path).sounding == set()


def test_many_threads_may_send_and_release(output: MidiOutput, path: Path) -> None:
    def play(stem: int) -> None:
        for k in range(100):
            now = time.monotonic()
            output.send([on(now, stem, 30 + k % 60), off(now + 0.01, stem, 30 + k % 60)])
            if k % 25 == stem:
                output.release(stem)
            time.sleep(0.002)

    threads = [threading.Thread(target=play, args=(stem,)) for stem in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output.close()
    assert heard(path).sounding == set()
    assert len(list(heard(path).notes(0x90))) > 100


def test_late_notes_are_counted_and_very_late_ones_dropped(output: MidiOutput, path: Path) -> None:
    now = time.monotonic()
    output.send([on(now - 0.1, 1, 40), off(now - 0.05, 1, 40), on(now - 1.0, 1, 50), off(now - 0.9, 1, 50)])
    wait_for(lambda: output.status.dropped == 1)
    wait_for(lambda: list(heard(path).notes(0x80)))
    assert set(heard(path).notes(0x90)) == {(0, 40)}
    assert output.status.late >= 1


def test_closing_leaves_nothing_behind_and_may_be_done_twice(path: Path) -> None:
    before = children()
    output = MidiOutput(f"log:{path}", STRIPS)
    assert output.status.port == f"log:{path}"
    assert not output.status.dead
    output.close()
    output.close()
    assert children() <= before
    assert output.status.dead
    output.send([on(0.0, 1, 40)])
    output.release()
    output.panic()


def test_wrong_values_are_named(output: MidiOutput, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no MIDI strip 4; there are 4"):
        output.send([on(0.0, 4, 60)])
    with pytest.raises(UsageError, match="no MIDI strip -1"):
        output.release(-1)
    with pytest.raises(UsageError, match="belongs to the MPE zone"):
        output.set_strip(1, StripMidi("bass", 1, mpe_channels=5))
    for values, text in (
        ({"port": " "}, "port is empty"),
        ({"port": "log:"}, "needs a path"),
        ({"rate": "fast"}, "there are virtual, din"),
        ({"late_limit_s": 0.0}, "above 0; got 0.0"),
        ({"queue_limit": 3}, "16 or more; got 3"),
        ({"client_name": "a:b"}, "without a colon; got 'a:b'"),
    ):
        with pytest.raises(UsageError, match=text):
            MidiOutput(**{"port": "null", "strips": STRIPS, **values})  # type: ignore[arg-type]
    before = children()
    with pytest.raises(UsageError, match="cannot be logged"):
        MidiOutput(f"log:{tmp_path / 'none' / 'x'}", STRIPS)
    wait_for(lambda: children() <= before)


def test_names_are_matched_and_the_others_listed() -> None:
    ports = [PortInfo(name, "JACK", "out") for name in ("synth:midi_00", "Synth B:in", "daw:in", "DAW:in 2")]
    assert find_port("b:IN", ports).name == "Synth B:in"
    assert find_port("daw:in", ports).name == "daw:in"
    with pytest.raises(
        DeviceNotFoundError, match=r"'sinth:midi_00'.*There are: synth:midi_00.*Did you mean 'synth:midi"
    ):
        find_port("sinth:midi_00", ports)
    with pytest.raises(DeviceError, match="2 MIDI ports have 'daw'"):
        find_port("daw", ports)
    with pytest.raises(DeviceNotFoundError, match="There is none"):
        find_port("x", [])


@pytest.mark.skipif(Path("/dev/snd/seq").exists() or sys.platform != "linux", reason="ALSA's sequencer is here")
def test_without_any_midi_system_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "no-such-server")
    with pytest.raises(MidiSystemError, match=r"No MIDI system answers here.*null, log:PATH") as caught:
        MidiOutput("virtual", STRIPS)
    assert caught.value.exit_code == 3
    with pytest.raises(MidiSystemError, match="Start a JACK server"):
        MidiOutput("synth", STRIPS)


def test_windows_is_told_about_loopmidi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(MidiSystemError, match="Install loopMIDI"):
        open_output("virtual")
