"""What the agent's schema says against what a running agent does, with whatever input schemathesis thinks of."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error, positive_data_acceptance
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from tests.support.agents import RunningAgent, agents_on
from tests.support.servers import redis_server

CALLS = (
    ("POST", "/v1/sessions"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/sessions"),
    ("GET", "/v1/sessions/{session}"),
    ("DELETE", "/v1/sessions/{session}"),
    ("POST", "/v1/sessions/{session}/activity"),
    ("POST", "/v1/sessions/{session}/hold"),
    ("POST", "/v1/sessions/{session}/save"),
    ("PUT", "/v1/drain"),
    ("DELETE", "/v1/drain"),
)
EXAMPLES = 60  #: for each call and kind of input
#: A draining node answers 503; and what makes a user's name is more than a schema can say.
NOT_ASKED = [not_a_server_error, positive_data_acceptance]


@pytest.fixture(scope="module")
def agent() -> Iterator[RunningAgent]:
    """An agent for all calls."""
    with redis_server() as store, agents_on(store.url, nodes=("ctx-01",)) as agents:
        yield agents["ctx-01"]


@pytest.fixture(scope="module")
def schema(agent: RunningAgent) -> BaseSchema:
    """Its own schema."""
    url = f"http://{agent.listen}/v1/openapi.json"
    return schemathesis.openapi.from_url(url, headers={"Authorization": str(agent.authorization)})


def test_every_call_is_tried(schema: BaseSchema) -> None:
    """The calls below are those of the schema, no more and no less."""
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    assert set(CALLS) == {(call.method.upper(), call.path) for call in found}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_the_agent_does_what_its_schema_says(
    agent: RunningAgent, schema: BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """No input makes a fault, and every answer has a status, a content type and a form that the schema names."""
    headers = {"Authorization": str(agent.authorization)}

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def answers(case: "schemathesis.Case[Any]") -> None:
        response = case.call_and_validate(headers=headers, excluded_checks=NOT_ASKED)
        assert response.status_code in {503, *range(200, 500)}

    answers()
    agent.request("DELETE", "/v1/drain")
