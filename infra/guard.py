"""Keeps other web pages away from a server on loopback: a request must name it and come from its own page.

A browser sends what any page asks for. A page of another origin says so in `Origin` or `Sec-Fetch-Site`; one
that made a name of its own lead to 127.0.0.1 (DNS rebinding) shows that name in `Host`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OwnPagesOnly:
    """ASGI middleware: refuses (403) requests and sockets for another host or from another origin's page.

    `host` is `name:port`. A link on any page may lead here: only what a page fetches, embeds or posts counts.
    """

    def __init__(self, app: App, *, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None if scope["type"] == "lifespan" else self._why_refused(scope)
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def _why_refused(self, scope: Scope) -> str | None:
        sent: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            sent.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if sent.get("host") != [self._host]:
            return f"This server answers at http://{self._host} only."
        foreign = any(origin != f"http://{self._host}" for origin in sent.get("origin", ()))
        followed_link = scope.get("method") == "GET" and sent.get("sec-fetch-dest") == ["document"]
        embedded = not {"same-origin", "none"}.issuperset(sent.get("sec-fetch-site", ()))
        if foreign or (embedded and not followed_link):
            return f"Only pages of http://{self._host} may ask this server."
        return None
