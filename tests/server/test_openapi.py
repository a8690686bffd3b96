"""The document says what the server does: it is valid, whole, and no request that it allows makes the server fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from opsagent_jupyter.server.interface import ROUTES
from opsagent_jupyter.server.openapi import document
from opsagent_jupyter.server.rights import Right
from tests.server.jupyter import Jupyter, done, jupyter

#: Requests in all; each operation has its share.
EXAMPLES = int(os.environ.get("OPSAGENT_TEST_EXAMPLES", "5000"))
SCHEMA = schemathesis.openapi.from_dict({**document(ROUTES), "servers": [{"url": "/"}]})


def test_the_document_is_valid_openapi():
    """OpenAPI 3.1, checked by the reference validator."""
    OpenAPIV31SpecValidator(document(ROUTES)).validate()


def test_the_server_gives_the_document(server: Jupyter):
    """What is served is what was validated."""
    assert done(server.program().get("api/openapi.json")) == document(ROUTES)


def test_the_document_has_every_route_with_its_right():
    """Path, method and right of each operation are those of the table."""
    found = {
        (path, method.upper(), operation["x-right"])
        for path, operations in document(ROUTES)["paths"].items()
        for method, operation in operations.items()
    }
    assert found == {(f"/{route.path}", route.method, route.right.resource) for route in ROUTES}


def test_a_token_is_documented_for_everything_but_decisions():
    """A program learns from the document that it cannot decide."""
    for route in ROUTES:
        schemes = {
            name
            for way in document(ROUTES)["paths"][f"/{route.path}"][route.method.lower()]["security"]
            for name in way
        }
        assert ("token" in schemes) is (route.right is not Right.APPROVE)


def test_no_answer_has_a_field_for_a_secret():
    """The connection string stands in what is taken, and in nothing that is given."""
    parts = document(ROUTES)["components"]["schemas"]
    assert [name for name, schema in parts.items() if "dsn" in schema.get("properties", {})] == ["Attachment"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server of its own: it will hold all kinds of things."""
    with jupyter(tmp_path_factory.mktemp("target")) as running:
        running.attach()
        yield running


@pytest.fixture(scope="module")
def credentials(target: Jupyter) -> dict[str, Any]:
    """What a logged-in browser sends with each request."""
    person = target.browser()
    own = {name: person.headers[name] for name in ("X-XSRFToken", "Origin")}
    return {"headers": own, "cookies": {cookie.name: cookie.value for cookie in person.cookies.jar}}


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES // len(ROUTES),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_server_fail(target: Jupyter, credentials: dict[str, Any], case: schemathesis.Case):
    """Whatever the document allows is answered as the document says, in every field, and never by a 5xx."""
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    case.call_and_validate(base_url=f"{target.url}api", checks=checks, **credentials)
