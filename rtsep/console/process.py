"""The console process: ``python -m rtsep.console.process``, started by `rtsep.console.live.Console` alone.

It serves the page, reads the engine's shared memory, and asks the control process for changes. Messages come on stdin,
whose end means the control process is gone; its own go out on what was stdout.
"""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from rtsep.engine.wire import Wire
from rtsep.errors import EngineError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.console.config import ConsoleConfig
    from rtsep.console.watch import Watch

_KEPT_NOTES_S = 15.0
_KEPT_NOTES = 2000
_GRACE_S = 1


class ConsoleProcess:
    """One run, from configuration to the last page closed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._notes: collections.deque[list[Any]] = collections.deque(maxlen=_KEPT_NOTES)

    def run(self) -> int:
        """Return the exit code. Sends ``ready``, then ``ended`` or ``error``."""
        first = self._wire.receive()
        if first is None or first["kind"] != "configure":
            return 1
        error: RtsepError
        try:
            asyncio.run(self._serve(first["config"]))
        except RtsepError as seen:
            error = seen
        except ImportError as seen:
            error = UsageError(f"The console needs the package {seen.name}; run: pip install 'rtsep[console]'")
        except Exception as seen:  # whatever the network does must reach the person as a sentence
            error = EngineError(f"The console failed: {type(seen).__name__}: {seen}")
            traceback.print_exc()
        else:
            self._wire.send("ended")
            return 0
        self._wire.send("error", type=type(error).__name__, message=str(error))
        return error.exit_code

    async def _serve(self, config: ConsoleConfig) -> None:
        import uvicorn

        from rtsep.console.access import listen_at
        from rtsep.console.courier import Courier
        from rtsep.console.server import LONGEST_MESSAGE, Hub, make_app, show_frames
        from rtsep.console.watch import FRAMES_PER_S, Watch

        self._courier = Courier(self._wire, "set")
        self._hub = Hub(
            dict(config.about),
            lambda path, value, who: self._courier.put_value(path, (value, who)),
            lambda command, who: self._courier.put("plugin", command=command, client=who),
        )
        self._watch: Watch = Watch(config)
        for event in self._watch.look():
            event["earlier"] = True  # when exactly, nobody saw
        self._hub.history = self._history
        listener = listen_at(config.host, config.port)
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(self._hub, config.host, config.token),
                ws="websockets-sansio",
                http="h11",
                loop="asyncio",
                lifespan="off",
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                ws_max_size=LONGEST_MESSAGE,
                ws_per_message_deflate=False,  # a frame is small, and packing it would cost more than sending it
                timeout_graceful_shutdown=_GRACE_S,
                limit_concurrency=200,
            )
        )
        self._listen(asyncio.get_running_loop(), server)
        self._wire.send("ready", port=listener.getsockname()[1], pid=os.getpid())
        watch = self._watch
        frames = asyncio.create_task(show_frames(self._hub, watch.frame, watch.rest, watch.look, FRAMES_PER_S))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        done, _ = await asyncio.wait((frames, serving), return_when=asyncio.FIRST_COMPLETED)
        frames.cancel()
        for task in done:
            task.result()

    def _listen(self, loop: asyncio.AbstractEventLoop, server: Any) -> None:
        def obey(message: dict[str, Any]) -> None:
            if message["kind"] == "stop":
                server.should_exit = True
            else:
                self._obey(message)

        def listen() -> None:
            while (message := self._wire.receive()) is not None:
                loop.call_soon_threadsafe(obey, message)
            loop.call_soon_threadsafe(obey, {"kind": "stop"})

        threading.Thread(target=listen, name="messages", daemon=True).start()

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "values":
            self._hub.set_values(message["values"])
        elif kind == "table":
            self._hub.set_table(message["added"], message["removed"])
        elif kind == "status":
            self._hub.set_status(message["status"])
        elif kind == "about":
            self._hub.set_about(message["about"])
        elif kind == "plugins":
            self._hub.set_plugins(message["plugins"])
        elif kind == "notes":
            self._notes.extend(message["notes"])
            self._hub.tell_all({"notes": message["notes"]})
        elif kind == "refused":
            self._hub.tell_refusal(message["client"], message["path"], message["message"], message["value"])

    def _history(self) -> dict[str, Any]:
        """What a page that is opened now gets of the past; notes that ended long ago are left out."""
        since = self._watch.position_s - _KEPT_NOTES_S
        recent = [note for note in self._notes if note[4] >= since]
        return {"notes": recent, "events": list(self._watch.events)}


def main() -> None:
    """Take the pipes, run, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Small matrices: a second thread would only be in the way of the engine.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = ConsoleProcess(Wire(sys.stdin.buffer, events)).run()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
