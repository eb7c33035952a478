"""The documents that the agent's HTTP interface takes and gives, as its OpenAPI schema shows them.

Field names are a public promise. Bad input is answered with the name of its field, never with the input itself.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from farmlease.domain.duration import parse_duration
from farmlease.domain.identity import LONGEST_ID, LONGEST_NAME, LONGEST_TOKEN, Identities, check_id, check_token
from farmlease.domain.model import Reason, SessionRequest
from farmlease.errors import InvalidInput

__all__ = [
    "AnswerDocument",
    "ExplanationDocument",
    "FieldError",
    "GrantDocument",
    "HeldUse",
    "HoldBody",
    "HoldDocument",
    "LeaseDocument",
    "ListQuery",
    "PoolExplanationDocument",
    "ProblemDocument",
    "ReadingDocument",
    "RestrictedDocument",
    "RuleDocument",
    "SavedDocument",
    "SavedUse",
    "SessionDocument",
    "SetDocument",
    "StartBody",
    "UseDocument",
    "UseQuery",
]

Token = Annotated[str, Field(min_length=1, max_length=LONGEST_TOKEN)]
#: Of a session or a device: any characters but control characters.
Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Group = Annotated[str, Field(max_length=LONGEST_NAME)]

_MOST_GROUPS = 2_000


class StartBody(BaseModel):
    """A user asks for a session."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    user: str = Field(min_length=1, max_length=LONGEST_NAME, description=r"CORP\john, john@corp.example.com or john")
    session: Id = Field(description="unique on the node")
    pool: Token | None = None
    app: Token | None = None
    site: Token | None = None
    groups: list[Group] = Field(
        default=[], max_length=_MOST_GROUPS, description="beside those that the host knows of; an empty one is left out"
    )
    device: Id | None = Field(default=None, description="an outside machine id; the farm by default")
    pid: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="the session ends with it")
    wait: Token | None = Field(default=None, description='longest wait in the queue, such as "10m"')

    @property
    def said(self) -> set[str]:
        """The fields that say something."""
        return {name for name in self.model_fields_set if getattr(self, name)}

    def request(self, identities: Identities) -> SessionRequest:
        """Return the request as a value; FieldError names the field that cannot be meant."""
        for field, check in (("session", check_id), ("pool", check_token), ("device", check_id)):
            if getattr(self, field) is not None:
                _checked(field, check, field, getattr(self, field))
        return SessionRequest(
            user=_checked("user", identities.user, self.user),
            session=self.session,
            given=self.user,
            pool=self.pool,
            app=self.app,
            site=self.site,
            groups=tuple(each for each in self.groups if each.strip()),
            device=self.device,
            pid=self.pid,
            wait_ms=_checked("wait", parse_duration, self.wait) if self.wait else 0,
        )


class ListQuery(BaseModel):
    """Which sessions to list."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    user: str | None = Field(default=None, min_length=1, max_length=LONGEST_NAME, description="in any spelling")


class UseQuery(BaseModel):
    """Which uses of a session are meant: all, or that of one pool."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    pool: Token | None = Field(default=None, description="this use alone")


class LeaseDocument(BaseModel):
    """The user's claim on a seat."""

    id: str
    issued_at: str
    expires_at: str


class GrantDocument(BaseModel):
    """The session may start."""

    decision: Literal["granted"]
    user: str
    pool: str
    kind: Literal["named", "floating", "node_locked"]
    device: str
    node: str
    session: str
    fence: int
    lease: LeaseDocument
    source: Literal["store", "receipt"]
    overdraft: bool


class UseDocument(BaseModel):
    """What a session of this node does with one pool: its grant, and how it stands. One that waits has no grant yet."""

    decision: Literal["granted"] | None = None
    user: str
    pool: str
    kind: Literal["named", "floating", "node_locked"] | None = None
    device: str
    node: str | None = None
    session: str
    fence: int | None = None
    lease: LeaseDocument | None = None
    source: Literal["store", "receipt"] | None = None
    overdraft: bool | None = None
    hold_until: str | None = None
    reason: str | None = None  #: why its seat was lost
    state: Literal["active", "waiting", "invalid", "lost"]


class SessionDocument(BaseModel):
    """A session of this node."""

    session: str
    user: str
    node: str
    uses: list[UseDocument]


class HoldBody(BaseModel):
    """How long a session's seat is to be kept, whatever its node does."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=False)

    span: Token | None = Field(
        default=None, alias="for", description='such as "4h"; as long as the pool allows by default'
    )

    def span_ms(self) -> int | None:
        """Return the span; FieldError if it is none."""
        if self.span is None:
            return None
        span = int(_checked("for", parse_duration, self.span))
        if not span:
            raise FieldError("for", InvalidInput("must be longer than 0s; leave it out for as long as the pool allows"))
        return span


class HeldUse(BaseModel):
    """Until when the seat of one pool is kept, or why it is not."""

    pool: str
    hold_until: str | None = None
    detail: str | None = None


class HoldDocument(BaseModel):
    """Until when the seats are kept; ``hold_until`` is the latest of them."""

    session: str
    hold_until: str
    uses: list[HeldUse]


class RestrictedDocument(BaseModel):
    """The session may start without a licence."""

    decision: Literal["restricted"]
    user: str
    node: str
    session: str


class SavedUse(BaseModel):
    """What became of the files of one pool, or why they could not be taken."""

    pool: str
    changed: bool | None = None
    superseded: bool | None = None
    delivered: bool | None = None
    detail: str | None = None


class SavedDocument(BaseModel):
    """What became of the vendor's files. ``superseded``: another node saved first, and its files are now in place.

    Beside what each use has: whether any was changed or superseded, and whether all is delivered.
    """

    session: str
    changed: bool
    superseded: bool
    delivered: bool
    uses: list[SavedUse]


class ProblemDocument(BaseModel):
    """What is wrong, and for a denial why and until when."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    reason: str | None = Field(default=None, description=f"of a denial: {', '.join(Reason)}")


class ReadingDocument(BaseModel):
    """A step from the name as given to the person, and the line of the policy that says so."""

    why: str
    line: int | None


class RuleDocument(BaseModel):
    """What decided which pools may be tried; ``number`` and ``line`` are null where no rule did."""

    number: int | None
    line: int | None
    why: str


class SetDocument(BaseModel):
    """How many claims are alive in a set, and how many there may be; null: any number."""

    set: str
    held: int
    most: int | None


class AnswerDocument(BaseModel):
    """What would be answered: a grant, restricted use, a place in the queue or a denial, with the fields of each."""

    model_config = ConfigDict(extra="allow")

    decision: Literal["granted", "restricted", "waiting", "denied"]
    how: Literal["new", "joined", "again", "moved", "receipt"] | None = Field(
        default=None, description="of a grant: what it would do"
    )
    reason: str | None = Field(default=None, description=f"of a denial: {', '.join(Reason)}")


class PoolExplanationDocument(BaseModel):
    """One pool that would be asked, as it is before the answer."""

    pool: str
    kind: Literal["named", "floating", "node_locked"]
    sets: list[SetDocument]
    lease: dict[str, Any] | None
    answer: AnswerDocument


class ExplanationDocument(BaseModel):
    """What a session start would be answered, and why. Nothing was taken."""

    user: str
    node: str
    identity: list[ReadingDocument]
    groups: list[str] | None
    groups_from: Literal["host", "given", "not_asked", "unknown"]
    rule: RuleDocument | None
    pools: list[PoolExplanationDocument]
    answer: AnswerDocument
    changes: list[str]


class FieldError(Exception):
    """A field of a request that cannot be meant."""

    def __init__(self, field: str, error: InvalidInput) -> None:
        super().__init__(f"{field}: {error}")
        self.field = field


def _checked(field: str, check: Any, *arguments: Any) -> Any:  # noqa: ANN401 - whatever the check returns
    try:
        return check(*arguments)
    except InvalidInput as error:
        raise FieldError(field, error) from None
