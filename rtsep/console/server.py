"""The console's page and its websockets: who may come in, what goes to whom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rtsep.console.access import SUBPROTOCOL, host_allowed, origin_allowed, token_allowed, token_of
from rtsep.errors import UsageError

MOST_CLIENTS = 16
LONGEST_MESSAGE = 4096
"""Bytes of one message of a client."""
MESSAGES_PER_S, BURST = 120.0, 240.0
"""What one client may send; its page gathers what moves in one message a picture of its screen."""
_MOST_VALUES, _LONGEST_TEXT = 64, 200
_MOST_TEXTS = 500
_TRY_LATER, _REFUSED = 1013, 1008
_DO = ("add", "remove", "move", "bypass", "set")
_COMMAND: dict[str, tuple[type, ...]] = {
    "target": (str,), "slot": (int,), "to": (int,), "name": (str,), "value": (bool, int, float, str),
}  # fmt: skip

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/slider.js": ("slider.js", "text/javascript; charset=utf-8"),
    "/strips.js": ("strips.js", "text/javascript; charset=utf-8"),
    "/plugins.js": ("plugins.js", "text/javascript; charset=utf-8"),
    "/views.js": ("views.js", "text/javascript; charset=utf-8"),
    "/frame.js": ("frame.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All files there are; what a client asks for never becomes the name of a file."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}

OnSet = Callable[[str, Any, int], object]
OnPlugin = Callable[[dict[str, Any], int], object]


class Client:
    """One open page: what waits to be sent to it, and how much it may still send.

    Parameters
    ----------
    number : int
        Of the client; a change of a value carries it, so that nobody hears an echo of himself.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.visible = True
        self.values: dict[str, Any] = {}
        self.texts: list[str] = []
        self.frame: bytes | None = None
        self.news = asyncio.Event()
        self.too_slow = False
        self._left, self._at = BURST, time.monotonic()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message when the connection takes it; a client that takes none for long is let go."""
        self.texts.append(json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
        self.too_slow = self.too_slow or len(self.texts) > _MOST_TEXTS
        self.news.set()

    def tell_value(self, path: str, value: Any) -> None:
        """Send a value; only the last one of a path matters."""
        self.values[path] = value
        self.news.set()

    def show(self, frame: bytes) -> None:
        """Send a frame; one that still waits is replaced."""
        self.frame = frame
        self.news.set()

    def may_send(self) -> bool:
        """Count one message of the client; False when it sends too many."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * MESSAGES_PER_S)
        self._at = now
        self._left -= 1
        return self._left >= 0


class Hub:
    """All clients, and what is known of the engine's parameters.

    Parameters
    ----------
    about : dict
        Words for the page.
    on_set : callable
        ``on_set(path, value, client)`` for a value that a client wants; must not wait.
    on_plugin : callable
        ``on_plugin(command, client)`` for what a client wants of plugins; likewise.

    Notes
    -----
    For the thread of the event loop.
    """

    def __init__(self, about: dict[str, Any], on_set: OnSet, on_plugin: OnPlugin) -> None:
        self.about, self._on_set, self._on_plugin = about, on_set, on_plugin
        self.clients: dict[int, Client] = {}
        self.parameters: dict[str, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self.plugins: dict[str, Any] | None = None
        self.history: Callable[[], dict[str, Any]] = dict
        """What a client that comes later gets of the past."""
        self.refused = 0
        """Connections and messages that were not taken."""
        self._numbers = itertools.count(1)

    # --- from the engine's side ---------------------------------------------------------------------------------------

    def set_table(self, added: list[dict[str, Any]], removed: list[str]) -> None:
        """Take what is new and what is gone among the parameters; an added one carries its value."""
        for path in removed:
            self.parameters.pop(path, None)
            self.values.pop(path, None)
        for parameter in added:
            self.parameters[parameter["path"]] = {k: v for k, v in parameter.items() if k != "value"}
            self.values[parameter["path"]] = parameter["value"]
        self.tell_all({"table": {"added": added, "removed": removed}})

    def set_values(self, values: dict[str, tuple[Any, int]]) -> None:
        """Take values with the number of the client that set them, 0 for others; everybody else is told."""
        for path, (value, source) in values.items():
            if path not in self.parameters:
                continue
            self.values[path] = value
            for client in self.clients.values():
                if client.number != source:
                    client.tell_value(path, value)
                else:
                    client.values.pop(path, None)  # what waits there is older than what he set himself

    def set_status(self, status: dict[str, Any]) -> None:
        """Take latency, notes and what else changes seldom."""
        self.status = status
        self.tell_all({"status": status})

    def set_about(self, about: dict[str, Any]) -> None:
        """Take the words on another model."""
        self.about = about
        self.tell_all({"about": about})

    def set_plugins(self, plugins: dict[str, Any]) -> None:
        """Take the chains of all strips, and what can be added to them."""
        self.plugins = plugins
        self.tell_all({"plugins": plugins})

    def tell_all(self, message: dict[str, Any]) -> None:
        """Send a message to every client."""
        for client in self.clients.values():
            client.tell(message)

    def tell_refusal(self, number: int, path: str, message: str, value: Any) -> None:
        """Tell a client that its value was not taken, and what stands instead."""
        client = self.clients.get(number)
        if client is not None:
            client.tell({"refused": {"path": path, "message": message, "value": value}})

    @property
    def watching(self) -> list[Client]:
        """Clients whose page is to be seen."""
        return [client for client in self.clients.values() if client.visible]

    # --- from the clients ---------------------------------------------------------------------------------------------

    def join(self) -> Client:
        """Take a new client and give it the whole state."""
        client = Client(next(self._numbers))
        table = [{**parameter, "value": self.values[path]} for path, parameter in self.parameters.items()]
        state = {"about": self.about, "table": table, "status": self.status, "plugins": self.plugins}
        client.tell({"hello": {**state, **self.history()}})
        self.clients[client.number] = client
        return client

    def leave(self, client: Client) -> None:
        """Forget a client; what it set stays."""
        self.clients.pop(client.number, None)

    def obey(self, client: Client, text: str) -> None:
        """Do what a message of a client says.

        Raises
        ------
        UsageError
            It is none that our page sends.
        """
        message = _parsed(text)
        if isinstance(message.get("visible"), bool):
            client.visible = message["visible"]
            return
        if "plugin" in message:
            self._on_plugin(_checked_command(message["plugin"]), client.number)
            return
        wanted = message.get("set")
        if not isinstance(wanted, dict) or not 0 < len(wanted) <= _MOST_VALUES:
            raise UsageError("A message says set, plugin or visible.")
        for path, value in wanted.items():
            if path not in self.parameters:
                self.refused += 1
                client.tell({"refused": {"path": path[:_LONGEST_TEXT], "message": "There is no such parameter."}})
            elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT):
                self._on_set(path, value, client.number)
            else:
                raise UsageError("A value is a number, true, false or a short text.")


def _parsed(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        message = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise UsageError("A message is JSON.") from None
    if not isinstance(message, dict):
        raise UsageError("A message is an object.")
    for values in (message.get("set"), message.get("plugin")):
        inside = values.values() if isinstance(values, dict) else ()
        if any(isinstance(value, float) and not math.isfinite(value) for value in inside):
            raise UsageError("A number is finite.")  # 1e999
    return message


def _checked_command(command: Any) -> dict[str, Any]:
    """Return what a page wants of a plugin, if it has the form of that."""
    if not isinstance(command, dict) or command.get("do") not in _DO or set(command) - {"do", *_COMMAND}:
        raise UsageError("That is no command for a plugin.")
    for key, kinds in _COMMAND.items():
        value = command.get(key)
        required = key == "target"
        if (required or value is not None) and not isinstance(value, kinds):
            raise UsageError(f"That is no {key} of a plugin.")
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise UsageError("A text is short.")
    return command


# --- in front ---------------------------------------------------------------------------------------------------------


class Guard:
    """Lets in what is meant for this console: the ``Host`` header, and for websockets the origin, are checked first.

    Parameters
    ----------
    app : ASGI application
    bound : str
        Where the console listens.
    on_refused : callable
    """

    def __init__(self, app: ASGIApp, bound: str, on_refused: Callable[[], object]) -> None:
        self._app, self._bound, self._on_refused = app, bound, on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host")
        if not host_allowed(host, self._bound):
            await self._refuse(scope, receive, send, "This console does not go by that name.")
        elif scope["type"] == "websocket" and not origin_allowed(headers.get(b"origin"), host):
            await self._refuse(scope, receive, send, "Only the console's own page may connect.")
        else:
            await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, why: str) -> None:
        self._on_refused()
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(_REFUSED, why)
        else:
            await PlainTextResponse(f"{why}\n", 403, _HEADERS)(scope, receive, send)


def make_app(hub: Hub, bound: str, token: str | None) -> ASGIApp:
    """Return the application: the page, ``/check`` for its token, ``/live`` for everything that moves."""
    folder = resources.files("rtsep.console") / "static"
    files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in ASSETS.items()}

    async def page(request: Request) -> Response:
        body, kind = files[request.url.path]
        return Response(body, headers={**_HEADERS, "content-type": kind})

    async def check(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return Response(status_code=204 if token_allowed(given, token) else 401, headers=_HEADERS)

    async def live(socket: WebSocket) -> None:
        if not token_allowed(token_of(socket.scope["subprotocols"]), token):
            count_refusal()
            await socket.close(_REFUSED, "The token is wrong.")
            return
        if len(hub.clients) >= MOST_CLIENTS:
            count_refusal()
            await socket.close(_TRY_LATER, "Too many pages are open.")
            return
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
        await _serve(hub, socket)

    def count_refusal() -> None:
        hub.refused += 1

    routes = [
        *(Route(path, page, methods=["GET"]) for path in files),
        Route("/check", check, methods=["GET"]),
        WebSocketRoute("/live", live),
    ]
    return Guard(Starlette(routes=routes), bound, count_refusal)


async def _serve(hub: Hub, socket: WebSocket) -> None:
    client = hub.join()
    sender = asyncio.create_task(_send(client, socket))
    try:
        await _receive(hub, client, socket)
    finally:
        hub.leave(client)
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await sender


async def _receive(hub: Hub, client: Client, socket: WebSocket) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        why = ""
        if not client.may_send():
            why = "Too many messages."
        elif text is None or len(text) > LONGEST_MESSAGE:
            why = "A message is a short text."
        else:
            try:
                hub.obey(client, text)
            except UsageError as error:
                why = str(error)
        if why:
            hub.refused += 1
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(_REFUSED, why)
            return


async def _send(client: Client, socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await client.news.wait()
            client.news.clear()
            if client.too_slow:
                await socket.close(_TRY_LATER, "The connection is too slow.")
                return
            texts, client.texts = client.texts, []
            for text in texts:
                await socket.send_text(text)
            if client.values:
                values, client.values = client.values, {}
                await socket.send_text(json.dumps({"values": values}, separators=(",", ":")))
            if client.frame is not None:
                frame, client.frame = client.frame, None
                await socket.send_bytes(frame)


async def show_frames(
    hub: Hub,
    frame: Callable[[], bytes],
    rest: Callable[[], object],
    look: Callable[[], list[dict[str, Any]]],
    per_s: float,
) -> None:
    """Send frames to the pages that are to be seen, at a steady pace; look at the counters also without any.

    Parameters
    ----------
    hub : Hub
    frame, rest, look : callable
        Of a `rtsep.console.watch.Watch`.
    per_s : float
        Frames a second.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        watching = hub.watching
        events = look()
        if events:
            hub.tell_all({"events": events})
        if watching:
            shown = frame()
            for client in watching:
                client.show(shown)
        else:
            rest()
        due = max(due + (1 / per_s if watching else 0.25), loop.time())
        await asyncio.sleep(due - loop.time())
