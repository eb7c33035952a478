"""schemathesis against the running agent: whatever is sent, no answer is a fault, and each is as the schema says."""

import warnings
from collections.abc import Iterator

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.agents import RunningAgent, agents_on
from tests.servers import redis_server

#: Requests for each operation; all of them together stay well under a minute.
EXAMPLES = 60


@pytest.fixture(scope="module")
def agent() -> Iterator[RunningAgent]:
    """One agent on a real store."""
    with redis_server() as store, agents_on(store.url, nodes=("ctx-01",)) as agents:
        yield agents["ctx-01"]


@pytest.fixture
def schema(agent: RunningAgent) -> schemathesis.BaseSchema:
    """The schema the agent serves."""
    headers = {"Authorization": str(agent.authorization)}
    return schemathesis.openapi.from_url(f"http://{agent.listen}/v1/openapi.json", headers=headers)


def test_whatever_is_sent_the_answer_is_in_the_schema(agent: RunningAgent, schema: schemathesis.BaseSchema) -> None:
    """No 500, and every answer has the status, the content type and the form that the schema promises."""
    headers = {"Authorization": str(agent.authorization)}
    seen = {agent.start("john", "7").status}
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None
        )
        @hypothesis.given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # requests warns of header values that only a fuzzer would send
                response = case.call(headers=headers)
            seen.add(response.status_code)
            assert response.status_code < 500, response.text
            case.validate_response(
                response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
            )

        ask()
    assert {200, 201, 204, 404, 422} <= seen
