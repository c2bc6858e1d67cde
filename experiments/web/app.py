"""The ASGI application of the live page: one page, one stream of events, and nothing to change."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from experiments.web.source import Source

COOKIE = "recast-page"
SECONDS = 1.0
# Browsers and proxies end a stream that says nothing.
_HEARTBEAT = 15
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
Handler = Callable[[Request], Awaitable[Response]]


def make_app(source: Source, token: str | None, hosts: Sequence[str]) -> Starlette:
    """The application.

    Args:
        source: of what it shows.
        token: that a reader must give once, as ``?token=``; ``None`` where everybody may read.
        hosts: names that a request may ask for; another would be a page that only looks like ours.

    Returns:
        Its ``state.readers`` is a set with an element for each stream of events that is open, and
        its ``state.making`` one with an element for each page that is being made for a reader.
    """

    def guarded(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if token is not None:
                given = request.query_params.get("token")
                if given is not None and hmac.compare_digest(given.encode(), token.encode()):
                    # Out of the address, where a history would keep it.
                    welcome = RedirectResponse(request.url.path, 303, _HEADERS)
                    welcome.set_cookie(COOKIE, token, httponly=True, samesite="strict")
                    return welcome
                kept = request.cookies.get(COOKIE, "")
                if not hmac.compare_digest(kept.encode(), token.encode()):
                    text = "Open the address that the server's log shows: it holds a token.\n"
                    return PlainTextResponse(text, 403, _HEADERS)
            return await handler(request)

        return answer

    readers, making = set[object](), set[object]()

    async def page(request: Request) -> Response:
        asked = object()
        making.add(asked)
        try:
            html = await run_in_threadpool(source.page)
        finally:
            making.discard(asked)
        return Response(html, headers=_HEADERS, media_type="text/html")

    async def events(request: Request) -> Response:
        told = _stream(source, readers)
        return StreamingResponse(told, headers=_HEADERS, media_type="text/event-stream")

    app = Starlette(
        routes=[Route("/", guarded(page)), Route("/events", guarded(events))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )
    app.state.readers, app.state.making = readers, making
    return app


async def _stream(source: Source, readers: set[object]) -> AsyncIterator[str]:
    """An event ``state`` whenever the server says something new, ``changed`` when it recorded.

    Once the server has ended, an event ``end`` every second until the reader leaves, who has read
    what was recorded last by then.
    """
    said, version, quiet, reader = "", source.version, 0, object()
    readers.add(reader)
    try:
        while True:
            ended = source.ended
            state = json.dumps(source.state)
            if state != said:
                said, quiet = state, 0
                yield f"event: state\ndata: {state}\n\n"
            now = await run_in_threadpool(lambda: source.version)
            if now != version:
                version, quiet = now, 0
                yield f"event: changed\ndata: {json.dumps(now)}\n\n"
            quiet += 1
            if ended:
                yield "event: end\ndata: {}\n\n"
            elif quiet >= _HEARTBEAT:
                quiet = 0
                yield ": still here\n\n"
            await asyncio.sleep(SECONDS)
    finally:
        readers.discard(reader)
