"""Closes a server on loopback to other web pages, and to whoever does not know the credential.

A browser sends what any page asks for. A page of another origin says so in `Origin` or `Sec-Fetch-Site`; one
that made a name of its own lead to 127.0.0.1 (DNS rebinding) shows that name in `Host`.
"""

import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from infra.credential import Credential

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware: refuses (403) requests and sockets for another host or from another origin's page, and
    (401) those without the credential, where one is given; a browser then asks for it.

    `host` is `name:port`. A link on any page may lead here: only what a page fetches, embeds or posts counts.
    `open_paths` need no credential.
    """

    def __init__(
        self, app: App, *, host: str, credential: Credential | None = None, open_paths: Collection[str] = ()
    ) -> None:
        self._app, self._host, self._open_paths = app, host, open_paths
        self._authorization = credential and credential.header["Authorization"].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            sent.setdefault(name.lower(), []).append(value)
        if reason := self._why_foreign(scope, sent):
            await _refuse(scope, send, 403, reason)
        elif not self._is_authorized(scope, sent):
            await _refuse(scope, send, 401, "Name and password are needed.")
        else:
            await self._app(scope, receive, send)

    def _why_foreign(self, scope: Scope, sent: dict[bytes, list[bytes]]) -> str | None:
        host, origin = self._host.encode(), f"http://{self._host}".encode()
        if sent.get(b"host") != [host]:
            return f"This server answers at http://{self._host} only."
        followed_link = scope.get("method") == "GET" and sent.get(b"sec-fetch-dest") == [b"document"]
        embedded = not {b"same-origin", b"none"}.issuperset(sent.get(b"sec-fetch-site", ()))
        if not {origin}.issuperset(sent.get(b"origin", ())) or (embedded and not followed_link):
            return f"Only pages of http://{self._host} may ask this server."
        return None

    def _is_authorized(self, scope: Scope, sent: dict[bytes, list[bytes]]) -> bool:
        if self._authorization is None or scope["path"] in self._open_paths:
            return True
        given = sent.get(b"authorization", [])
        return len(given) == 1 and hmac.compare_digest(given[0], self._authorization)


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="lco", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
