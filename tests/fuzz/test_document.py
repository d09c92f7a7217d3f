"""The gateway's own OpenAPI document: what fits it and what does not is asked, and every answer fits it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.ask import Answer, Ask, judge, may_fail
from tests.fuzz.bodies import MODELS
from tests.fuzz.plan import tried
from tests.fuzz.stage import SECRETS, Stage
from tests.gateway.conftest import APP_KEY

CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance]


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with the models there are: of invented ones one learns little."""
    for schema in document["components"]["schemas"].values():
        names = schema.get("properties", {})
        if "model" in names and {"messages", "input", "prompt"} & set(names):
            names["model"] = {"enum": list(MODELS)}
    return document


class Asked:
    """Sends cases to both gateways."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        document = described(httpx2.get(f"{stage.gateways[False].url}/openapi.json").json())
        schema = schemathesis.openapi.from_dict(document)
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        assert len(operations) > 15
        self.cases = {
            mode: st.one_of([operation.as_strategy(generation_mode=mode) for operation in operations])
            for mode in GenerationMode
        }
        self.session = requests.Session()

    def ask(self, case: Case[Any], locked: bool) -> None:
        headers = {"authorization": f"Bearer {APP_KEY}"} if locked else {}
        response = case.call(base_url=self.stage.gateways[locked].url, session=self.session, headers=headers)
        sent = response.request
        body = sent.body if isinstance(sent.body, bytes) else str(sent.body or "").encode()
        ask = Ask(
            method=(sent.method or "").encode(),
            target=sent.path_url.encode(),
            headers=tuple(
                (str(n).lower().encode(), v if isinstance(v, bytes) else v.encode("latin-1"))
                for n, v in sent.headers.items()
            ),
            body=body,
        )
        answer = Answer(response.status_code, {n: ", ".join(v) for n, v in response.headers.items()}, response.content)
        self.stage.count(answer)
        judge(ask, answer, SECRETS)
        case.validate_response(response, checks=CHECKS if may_fail(ask) else [*CHECKS, not_a_server_error])


@pytest.fixture(scope="session")
def asked(running_stage: Stage) -> Iterator[Asked]:
    built = Asked(running_stage)
    yield built
    built.session.close()


@tried(40, 800, data=st.data(), locked=st.booleans())
def test_what_fits_the_document(asked: Asked, data: st.DataObject, locked: bool) -> None:
    asked.ask(data.draw(asked.cases[GenerationMode.POSITIVE]), locked)


@tried(40, 800, data=st.data(), locked=st.booleans())
def test_what_does_not_fit_the_document(asked: Asked, data: st.DataObject, locked: bool) -> None:
    asked.ask(data.draw(asked.cases[GenerationMode.NEGATIVE]), locked)
