# mypy: ignore-errors
"""Instructor, run in the environment of `requirements/clients.txt`: one JSON object, case by case."""

import asyncio
import json
import os
import traceback
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import instructor
import openai
from instructor import Mode
from instructor.core import InstructorRetryException
from pydantic import AfterValidator, BaseModel

LOCAL, STAND_IN = f"{os.environ['LOCAL_URL']}/v1", f"{os.environ['STAND_IN_URL']}/v1"
PIE = [{"role": "user", "content": "Describe apple pie."}]
ORDER = [{"role": "user", "content": "Order 3 portions of 'Pie'."}]


class Dish(BaseModel):
    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


class Order(BaseModel):
    name: str
    portions: int


def _not_three(value: int) -> int:
    if value == 3:
        raise ValueError("three is not enough")
    return value


class Choosy(BaseModel):
    portions: Annotated[int, AfterValidator(_not_three)]


def at(url: str, mode: Mode) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key="local", max_retries=0), mode=mode)


def by_tool() -> object:
    client = at(STAND_IN, Mode.TOOLS)
    return client.create(model="auto", messages=ORDER, response_model=Order, max_retries=0).model_dump()


def by_schema() -> object:
    client = at(LOCAL, Mode.JSON_SCHEMA)
    dish = client.create(model="auto", messages=PIE, response_model=Dish, max_retries=0, max_tokens=200, temperature=0)
    return dish.model_dump()


def by_json() -> object:
    client = at(STAND_IN, Mode.JSON)
    messages = [{"role": "user", "content": "JSON with 'name' and 'taste', please."}]
    made = client.create(model="auto", messages=messages, response_model=None, response_format={"type": "json_object"})
    return json.loads(made.choices[0].message.content)


def by_responses() -> object:
    client = at(STAND_IN, Mode.RESPONSES_TOOLS)
    return client.create(model="auto", messages=ORDER, response_model=Order, max_retries=0).model_dump()


def partial() -> object:
    client = at(STAND_IN, Mode.TOOLS)
    steps = list(client.create_partial(model="auto", messages=ORDER, response_model=Order, max_retries=0))
    return {"steps": len(steps), "last": steps[-1].model_dump()}


def several() -> object:
    client = at(STAND_IN, Mode.TOOLS)
    orders = client.create(model="auto", messages=ORDER, response_model=Iterable[Order], stream=True, max_retries=0)
    return [order.model_dump() for order in orders]


def asked_again() -> object:
    client, asked = at(STAND_IN, Mode.TOOLS), []
    client.on("completion:kwargs", lambda *_, **kwargs: asked.append(len(kwargs["messages"])))
    try:
        client.create(model="auto", messages=ORDER, response_model=Choosy, max_retries=2)
    except InstructorRetryException as e:
        return {"attempts": e.n_attempts, "asked": asked}
    return {"asked": asked}


def asynchronously() -> object:
    async def make() -> object:
        async with openai.AsyncOpenAI(base_url=STAND_IN, api_key="local", max_retries=0) as sdk:
            client = instructor.from_openai(sdk, mode=Mode.TOOLS)
            return (await client.create(model="auto", messages=ORDER, response_model=Order, max_retries=0)).model_dump()

    return asyncio.run(make())


def raw() -> object:
    client = at(LOCAL, Mode.JSON_SCHEMA)
    dish, completion = client.create_with_completion(
        model="auto", messages=PIE, response_model=Dish, max_retries=0, max_tokens=200, temperature=0
    )
    return {"dish": dish.model_dump(), "model": completion.model, "tokens": completion.usage.completion_tokens}


def refused() -> object:
    try:
        at(LOCAL, Mode.JSON_SCHEMA).create(model="no-such-model", messages=PIE, response_model=Dish, max_retries=0)
    except InstructorRetryException as e:
        cause = e.__cause__
        while cause is not None and not isinstance(cause, openai.APIStatusError):
            cause = getattr(cause, "last_attempt", None) and cause.last_attempt.exception()
        return {"name": type(cause).__name__, "status": cause.status_code, "code": cause.code}
    except openai.APIStatusError as e:
        return {"name": type(e).__name__, "status": e.status_code, "code": e.code}


CASES: list[Callable[[], object]] = [
    by_tool,
    by_schema,
    by_json,
    by_responses,
    partial,
    several,
    asked_again,
    asynchronously,
    raw,
    refused,
]


def main() -> None:
    said = {}
    for case in CASES:
        try:
            said[case.__name__] = case()
        except Exception:
            said[case.__name__] = {"failed": traceback.format_exc()[-3000:]}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
