"""What balancers and monitors may ask without a token: whether a logon sent here now is going to be served.

Says nothing about users, touches neither store nor journal, and lives on its own listener, so that probes, however
many or slow, stay away from the sessions.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from farmlease.domain.health import Health

__all__ = ["create_health_app"]

_JSON = "application/health+json"
_METHODS = ["GET", "HEAD", "OPTIONS"]


def create_health_app(look: Callable[[], Health]) -> Starlette:
    """Return the health listener's ASGI application; ``look`` is asked at each probe and must be cheap."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("pass\n", headers=_headers())

    async def readyz(request: Request) -> Response:
        found = look()
        if _JSON in request.headers.get("accept", ""):
            return _document(found)
        worst = next((f" {check.output}" for check in found.checks if check.status is found.status), "")
        words = f"{found.status}{worst if found.status != 'pass' else ''}\n"
        return PlainTextResponse(words, _status(found), _headers())

    async def healthz(_: Request) -> Response:
        return _document(look())

    return Starlette(
        routes=[
            Route("/livez", _answering_options(livez), methods=_METHODS),
            Route("/readyz", _answering_options(readyz), methods=_METHODS),
            Route("/healthz", _answering_options(healthz), methods=_METHODS),
        ]
    )


def _answering_options(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        response = await answer(request)
        response.headers["Allow"] = ", ".join(_METHODS)
        return response

    return respond


def _status(found: Health) -> int:
    return 200 if found.ready else 503


def _headers() -> dict[str, str]:
    return {"Cache-Control": "no-store"}


def _document(found: Health) -> Response:
    """The health+json format: a status word, and for each thing looked at its own."""
    checks = {check.name: [{"status": check.status.value, "output": check.output}] for check in found.checks}
    document = {"status": found.status.value, "checks": checks}
    return JSONResponse(document, _status(found), _headers(), _JSON)
