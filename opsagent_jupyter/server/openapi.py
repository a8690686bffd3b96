"""The OpenAPI 3.1 document of the REST interface, made from its routes and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from opsagent_jupyter import errors
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.server.bodies import Fault
from opsagent_jupyter.server.rights import Right
from opsagent_jupyter.server.routes import Nothing, Route
from opsagent_jupyter.server.statuses import status_of

Schema = dict[str, Any]
Names = Mapping[Any, Schema]
"""The reference of a model, by model and mode."""

#: What can happen to any request.
ALWAYS = (errors.InvalidRequest, errors.NotAuthenticated, errors.NotAuthorized, errors.TooManyRequests)
#: What can happen to one that needs the store.
STORED = (errors.StoreError, errors.AuditError, errors.ConfigError, errors.CredentialError)
SECURITY: Schema = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`token ...`, the Jupyter server's. It looks and operates; it decides nothing.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "username-...",
        "description": "A browser's login to the Jupyter server, named after its host and port.",
    },
    "xsrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-XSRFToken",
        "description": "The value of the cookie _xsrf, with everything that a cookie alone would let another page do.",
    },
}


def document(routes: Sequence[Route]) -> Schema:
    """The document; its paths begin at ``<base_url>opsagent/api``, where it lies itself."""
    names, definitions = schemas(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpsAgent for Jupyter",
            "version": version("opsagent_jupyter"),
            "description": "Diagnose and fix databases, with a person in charge of every change.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in dict.fromkeys(tag_of(route) for route in routes)],
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": SECURITY},
    }


def schemas(routes: Sequence[Route]) -> tuple[Names, Schema]:
    """The reference of each model, and the definitions behind them."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Fault, "serialization"): None}
    for route in routes:
        if not route.media_types:
            wanted[route.answer, "serialization"] = None
        if route.body is not Nothing:
            wanted[route.body, "validation"] = None
    names, found = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    return names, found["$defs"]


def tag_of(route: Route) -> str:
    """The group that a route belongs to."""
    head = route.path.partition("/")[0]
    return head if head in ("servers", "plugins", "sessions", "approvals", "audit") else "host"


def operation(route: Route, names: Names) -> Schema:
    """One method at one path."""
    described: Schema = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [tag_of(route)],
        "parameters": [*map(path_parameter, route.parameters), *query_parameters(route.query)],
        "responses": {
            str(int(route.status)): answer(route, names),
            **faults(route, names[Fault, "serialization"]),
        },
        "security": security(route),
        "x-right": route.right.resource,
    }
    if route.body is not Nothing:
        described["requestBody"] = {"required": True, "content": content(names[route.body, "validation"])}
    return described


def answer(route: Route, names: Names) -> Schema:
    """What is answered when all went well."""
    if not route.media_types:
        return {"description": "Done.", "content": content(names[route.answer, "serialization"])}
    return {
        "description": "A file.",
        "content": {kind: {} for kind in route.media_types},  # bytes, of which a schema says nothing
        "headers": {
            "Content-Disposition": {"schema": {"type": "string"}, "description": "An attachment with a name."},
            "X-OpsAgent-Rows": {"schema": {"type": "integer"}, "description": "Records in the file."},
            "X-OpsAgent-Cut": {"schema": {"type": "string"}, "description": "`true` when there were more."},
        },
    }


def security(route: Route) -> list[Schema]:
    """How whoever asks may be known: by the token or by a browser's login, which another page must not borrow."""
    login: Schema = {"cookie": []} if route.method == "GET" else {"cookie": [], "xsrf": []}
    return [login] if route.right is Right.APPROVE else [{"token": []}, login]


def content(schema: Schema) -> Schema:
    """A JSON body."""
    return {"application/json": {"schema": schema}}


def path_parameter(name: str) -> Schema:
    """A name in a path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def query_parameters(query: type[BaseModel]) -> list[Schema]:
    """The fields of a query; their schemas refer to nothing outside."""
    schema = query.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": inlined(field, definitions)}
        for name, field in schema.get("properties", {}).items()
    ]


def inlined(schema: Schema, definitions: Schema) -> Schema:
    """A schema with its references replaced; that a value may be left out is said by ``required``, not by null."""
    if "$ref" in schema:
        return dict(definitions[schema["$ref"].rpartition("/")[2]])
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return inlined(options[0], definitions)
    return schema


def faults(route: Route, fault: Schema) -> Schema:
    """The answers when something goes wrong, by status, with the codes that each can have."""
    by_status: dict[HTTPStatus, list[type[OpsAgentError]]] = {}
    for error in faults_of(route):
        by_status.setdefault(status_of(error), []).append(error)
    return {str(int(status)): refusal(kinds, fault) for status, kinds in sorted(by_status.items())}


def faults_of(route: Route) -> list[type[OpsAgentError]]:
    """What can go wrong with a route."""
    found: list[type[OpsAgentError]] = [*ALWAYS, *route.errors]
    if not route.about:
        found += STORED
    if "cursor" in route.query.model_fields:
        found.append(errors.InvalidCursor)
    if route.method != "GET":
        found += [errors.CrossSite, errors.RequestTooLarge]
    if route.right is Right.APPROVE:
        found.append(errors.SessionRequired)
    return list(dict.fromkeys(found))


def refusal(kinds: Sequence[type[OpsAgentError]], fault: Schema) -> Schema:
    """One status with its codes."""
    lines = [f"- `{kind.code}`: {kind().message.partition(chr(10))[0]}" for kind in kinds]
    answer: Schema = {"description": "\n".join(lines), "content": content(fault)}
    if errors.TooManyRequests in kinds:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
    return answer
