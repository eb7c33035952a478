"""The command ``farmlease``, whose agent has one route more: ``GET /empty`` answers 204 and does nothing.

What any call of this server costs, gate and all; for measuring only, so it is no part of the agent.
"""

from fastapi import FastAPI, Response

from farmlease.cli import main
from farmlease.node import daemon
from farmlease.node.agent import Agent
from farmlease.node.loops import Loops

__all__ = ["EMPTY", "create_app"]

EMPTY = "/empty"
production = daemon.create_app


def create_app(agent: Agent, rounds: Loops) -> FastAPI:
    """Return the agent's own application and the route."""
    app = production(agent, rounds)

    @app.get(EMPTY, status_code=204, response_class=Response)
    async def empty() -> Response:
        return Response(status_code=204)

    return app


if __name__ == "__main__":
    daemon.create_app = create_app
    main()
