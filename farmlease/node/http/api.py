"""The agent's HTTP interface: turns JSON into values, asks the agent, turns values into JSON. It decides nothing.

``Gate`` has let the caller in before anything here runs, and a path is routed as ``path_as_sent`` has it. Every answer
that is not a success is ``problem+json`` whose ``detail`` is one sentence for a person.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import structlog
from fastapi import Body, Depends, FastAPI, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from farmlease import __version__
from farmlease.domain.identity import LONGEST_ID, User, check_id
from farmlease.domain.json_documents import Document, decision_document, explanation_document, timestamp
from farmlease.domain.model import Decision, Denial, Grant, Reason, SessionRequest
from farmlease.domain.session_states import IllegalEvent
from farmlease.errors import (
    CannotHold,
    FarmleaseError,
    FileRefused,
    InvalidInput,
    InvalidName,
    JournalFailed,
    PolicyError,
    RecordRejected,
)
from farmlease.node.agent import Agent
from farmlease.node.files.folder import FileBusy
from farmlease.node.http.auth import Caller, NotYours, problem
from farmlease.node.http.schemas import (
    ExplanationDocument,
    FieldError,
    GrantDocument,
    HoldBody,
    HoldDocument,
    ListQuery,
    ProblemDocument,
    RestrictedDocument,
    SavedDocument,
    SessionDocument,
    StartBody,
    UseDocument,
    UseQuery,
)
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.loops import Loops
from farmlease.node.sessions.hold import Held
from farmlease.node.sessions.per_use import NotDone
from farmlease.node.sessions.save import Saved

__all__ = ["create_app"]

_log = structlog.get_logger(__name__)


def _given_id(segment: str) -> str:
    """Return the id in a segment of a path, for pydantic."""
    try:
        return check_id("session", unquote_to_bytes(segment).decode(errors="surrogateescape"))
    except InvalidInput as error:
        raise PydanticCustomError("id", "{why}", {"why": str(error)}) from None


SessionId = Annotated[
    str,
    BeforeValidator(_given_id),
    Path(min_length=1, max_length=LONGEST_ID, description="unique on the node; any characters, percent-encoded"),
]
OfUse = Annotated[UseQuery, Query()]

_FAULT = "the agent failed inside; the administrator finds the place in its log"
#: Seconds between two looks whether a caller that waits is still there.
_LOOK_EVERY = 1.0

_STATUS = {Reason.NOT_ENTITLED: 403, Reason.OFFLINE: 503, Reason.DRAINING: 503}
_PROBLEM = {
    "description": "What is wrong, and for a denial why and until when",
    "content": {"application/problem+json": {"schema": ProblemDocument.model_json_schema()}},
}
#: What any call may be answered with.
_ANY: dict[int | str, dict[str, Any]] = dict.fromkeys((401, 403, 413, 422, 503), _PROBLEM)
_ONE = _ANY | {404: _PROBLEM}
_SAVE = _ONE | {409: _PROBLEM}
_START = _ANY | {200: {"model": GrantDocument | RestrictedDocument}, 409: _PROBLEM}


def create_app(agent: Agent, loops: Loops) -> FastAPI:
    """Return the agent's API as an ASGI application, without its gate."""
    app = FastAPI(
        title="farmlease agent",
        version=__version__,
        description="Sessions of one node. Over TCP send the token of token_file as bearer.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Said in the schema; it is the gate that looks at the token, and on a Unix socket none is needed.
        dependencies=[
            Security(HTTPBearer(auto_error=False, description="what stands in token_file")),
            Depends(loops.awake),
        ],
    )
    _answer_bad_input(app)
    _answer_errors(app)
    _add_start(app, agent)
    _add_explanation(app, agent)
    _add_session_calls(app, agent)
    _add_calls_that_keep(app, agent)
    _add_node_calls(app, agent)
    return app


def _add_start(app: FastAPI, agent: Agent) -> None:
    @app.post("/v1/sessions", status_code=201, response_model=GrantDocument, responses=_START)
    async def start(body: Annotated[StartBody, Body()], http: Request) -> Response:
        in_force = agent.policy.in_force
        if in_force.policy is None:
            in_force = await agent.known_policy()
        if in_force.policy is None:  # then nobody knows who is who
            return _denied(agent.deny_without_policy(body.pool))
        request, caller = body.request(in_force.identity), Caller.of(http).under(in_force.identity)
        if not caller.may_act_for(request.user):
            return problem(403, "you may start sessions for yourself only", reason=Reason.NOT_ENTITLED.value)
        caller.check(body.said, request.pid)
        decision = await _decided(agent, request, caller, caller.name or body.user, http)
        if decision is None:
            return problem(503, "the caller is gone; its place in the queue is given up")
        if isinstance(decision, Denial):
            return _denied(decision)
        new = isinstance(decision, Grant) and not decision.again
        return JSONResponse(decision_document(decision), 201 if new else 200)


def _add_explanation(app: FastAPI, agent: Agent) -> None:
    @app.post("/v1/explain", response_model=ExplanationDocument, responses=_ANY)
    async def explain(body: Annotated[StartBody, Body()], http: Request) -> Response:
        """Tell what POST /v1/sessions would answer to the same body, and why. Takes nothing, writes nothing."""
        in_force = agent.policy.in_force
        request, caller = body.request(in_force.identity), Caller.of(http).under(in_force.identity)
        if not caller.may_act_for(request.user):
            return problem(403, "you may ask about yourself only", reason=Reason.NOT_ENTITLED.value)
        caller.check(body.said, request.pid)
        explanation = await agent.explain_session(request, caller.name or body.user, caller.only)
        return JSONResponse(explanation_document(explanation))


def _add_session_calls(app: FastAPI, agent: Agent) -> None:
    @app.get("/v1/sessions", response_model=list[UseDocument], responses=_ANY)
    async def sessions(http: Request, query: Annotated[ListQuery, Query()]) -> Response:
        caller, only = Caller.of(http), _person(agent, query.user)
        found = (each for each in agent.all_uses() if only in {None, each.user})
        return JSONResponse([_shown(each) for each in found if caller.may_act_for(each.user)])

    @app.get("/v1/sessions/{session}", response_model=SessionDocument, responses=_ONE)
    async def session(session: SessionId, http: Request, of: OfUse) -> Response:
        uses = _own(agent, session, of.pool, http)
        if not uses:
            return _no_session()
        whose = {"session": session, "user": uses[0].user.canonical, "node": agent.node}
        return JSONResponse({**whose, "uses": [_shown(each) for each in uses]})

    @app.delete("/v1/sessions/{session}", status_code=204, response_class=Response, responses=_ANY)
    async def end(session: SessionId, http: Request, of: OfUse) -> Response:
        if not await agent.end_session(session, Caller.of(http).only, of.pool):
            return problem(403, "this session is another user's")
        return Response(status_code=204)


def _add_calls_that_keep(app: FastAPI, agent: Agent) -> None:
    @app.post("/v1/sessions/{session}/save", response_model=SavedDocument, responses=_SAVE)
    async def save(session: SessionId, http: Request, of: OfUse) -> Response:
        uses = await agent.save_session(session, Caller.of(http).only, of.pool)
        saved = [each for each in uses if isinstance(each, Saved)]
        of_all = {
            "changed": any(each.changed for each in saved),
            "superseded": any(each.superseded for each in saved),
            "delivered": len(saved) == len(uses) and all(each.delivered for each in saved),
        }
        return _per_use(session, of_all, uses) if saved else _none_done(uses)

    @app.post("/v1/sessions/{session}/activity", status_code=204, response_class=Response, responses=_ONE)
    async def activity(session: SessionId, http: Request, of: OfUse) -> Response:
        if not _own(agent, session, of.pool, http):
            return _no_session()
        if not agent.touch(session, of.pool):
            return problem(404, "this session has lost its seat; end it, or start it again")
        return Response(status_code=204)

    @app.post("/v1/sessions/{session}/hold", response_model=HoldDocument, responses=_SAVE)
    async def hold(
        session: SessionId, http: Request, of: OfUse, body: Annotated[HoldBody | None, Body()] = None
    ) -> Response:
        uses = await agent.hold_session(session, body.span_ms() if body else None, Caller.of(http).only, of.pool)
        held = [each.until for each in uses if isinstance(each, Held)]
        return _per_use(session, {"hold_until": timestamp(max(held))}, uses) if held else _none_done(uses)


def _per_use(session: str, of_all: Document, uses: Sequence[Held | Saved | NotDone]) -> Response:
    """Answer what a verb did: to the session as a whole, and to each use."""
    return JSONResponse({"session": session, **of_all, "uses": [_done(each) for each in uses]})


def _done(use: Held | Saved | NotDone) -> Document:
    match use:
        case Held(pool=pool, until=until):
            return {"pool": pool, "hold_until": timestamp(until)}
        case NotDone(pool=pool, error=error):
            return {"pool": pool, "detail": str(error)}
        case Saved():
            return asdict(use)


def _none_done(uses: Sequence[Held | Saved | NotDone]) -> Response:
    """Answer a verb that succeeded for no use of a session: as it failed for the first, and how for each."""
    failed = [(each.pool, _verdict(each.error, pool=each.pool)) for each in uses if isinstance(each, NotDone)]
    if not failed:
        return _no_session()
    _, (status, detail) = failed[0]
    return problem(status, detail, uses=[{"pool": pool, "detail": why} for pool, (_, why) in failed])


def _add_node_calls(app: FastAPI, agent: Agent) -> None:
    def drain(http: Request, *, on: bool) -> Response:
        if Caller.of(http).only is not None:
            return problem(403, "only an administrator may drain a node")
        agent.drain(on=on)
        return Response(status_code=204)

    @app.put("/v1/drain", status_code=204, response_class=Response, responses=_ANY)
    async def start_draining(http: Request) -> Response:
        return drain(http, on=True)

    @app.delete("/v1/drain", status_code=204, response_class=Response, responses=_ANY)
    async def stop_draining(http: Request) -> Response:
        return drain(http, on=False)


def _answer_bad_input(app: FastAPI) -> None:
    @app.exception_handler(FieldError)
    async def bad_field(_: Request, error: FieldError) -> Response:
        return problem(422, str(error), field=error.field)

    @app.exception_handler(NotYours)
    async def not_yours(_: Request, error: NotYours) -> Response:
        return problem(403, str(error), field=error.field)

    @app.exception_handler(RequestValidationError)
    async def bad_input(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return problem(422, f"{field}: {first['msg']}", field=field)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # noqa: PLR2004 - an HTTP status; FastAPI's for what is no text, or too deep
            return problem(422, "body: is not JSON that can be read", field="body")
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(FarmleaseError)
    async def failed(request: Request, error: FarmleaseError) -> Response:
        return problem(*_verdict(error, path=request.url.path))

    @app.exception_handler(Exception)
    async def fault(_: Request, __: Exception) -> Response:
        return problem(500, _FAULT)


def _verdict(error: FarmleaseError, **where: str) -> tuple[int, str]:
    """Return the status and the sentence for an error; log it with the path or the pool that it is about."""
    if isinstance(error, CannotHold | FileBusy):  # an answer, not a fault
        return 409, str(error)
    _log.error("api.failed", error=type(error).__name__, why=str(error), **where)
    match error:
        case FileRefused() | RecordRejected():
            return 409, str(error)
        case PolicyError() | JournalFailed():  # texts of ours, for an administrator; they name no user
            return 503, str(error)
        case IllegalEvent():
            return 500, _FAULT
        case _:
            return 503, "the agent cannot do this now; the administrator finds the reason in its log"


async def _decided(agent: Agent, request: SessionRequest, caller: Caller, name: str, http: Request) -> Decision | None:
    """Return the decision about a user of this name on the host; None if a caller who waits has hung up.

    If a policy that asks for groups came into force meanwhile, after one that did not, nobody had looked them up: a
    denial is then asked for again.
    """
    while True:
        looked_up = agent.reads_groups
        work = agent.start_session(await agent.with_groups(request, name), caller.only)
        decision = await (_while_connected(http, work) if request.wait_ms else work)
        if looked_up or not agent.reads_groups or not isinstance(decision, Denial):
            return decision


async def _while_connected(http: Request, work: Coroutine[Any, Any, Decision]) -> Decision | None:
    """Return what ``work`` returns; None, and it is cut short, if the caller hangs up before."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_EVERY)
            if not task.done() and await http.is_disconnected():
                return None
        return task.result()
    finally:
        task.cancel()


def _shown(session: NodeSession) -> Document:
    known = decision_document(session.grant) if session.grant else _waiting(session)
    held = {} if session.hold_until is None else {"hold_until": timestamp(session.hold_until)}
    lost = {} if session.lost_because is None else {"reason": session.lost_because}
    return {**known, **held, **lost, "state": session.state.value}


def _waiting(session: NodeSession) -> Document:
    """Return the document of a session that has no seat yet."""
    return {
        "user": session.user.canonical,
        "pool": session.pool,
        "device": session.device,
        "session": session.id,
    }


def _person(agent: Agent, user: str | None) -> User | None:
    """Return the person of a spelling; None where none is given."""
    try:
        return None if user is None else agent.person(user)
    except InvalidName as error:
        raise FieldError("user", error) from None


def _denied(denial: Denial) -> Response:
    status = _STATUS.get(denial.reason, 409)
    return problem(status, denial.detail, **_without_detail(decision_document(denial)))


def _own(agent: Agent, session: str, pool: str | None, http: Request) -> list[NodeSession]:
    """Return the uses of a session that the caller may see."""
    return [each for each in agent.uses(session, pool) if Caller.of(http).may_act_for(each.user)]


def _no_session() -> Response:
    return problem(404, "there is no such session on this node")


def _without_detail(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "detail"}
