"""Conversations that are longer than their model's context."""

from typing import Any

import httpx2

from tests import scripts
from tests.gateway.sessions.turns import ask, begun, listed, said, sent
from tests.http import error_of
from tests.provider import Provider


def long(http: httpx2.Client, policy: str | None, model: str) -> tuple[str, list[dict[str, Any]]]:
    session = begun(http, system="Be brief.", model=model, context=policy)
    return session, said(http, session, *(f"{n} " + "word " * 50 for n in range(4)), model="fake/fake")


def test_the_oldest_turns_are_left_out_when_the_model_refuses(http: httpx2.Client, upstream: Provider) -> None:
    session, _ = long(http, None, "small")
    ids = [m["id"] for m in listed(http, session)]
    # Two or three of the four turns fit, with what is around them.
    [answer] = said(http, session, "Now " + "word " * 60)
    context = answer["context"]
    assert (context["policy"], context["summarized"]) == ("drop_oldest", False)
    assert context["dropped"] == ids[: context["dropped_messages"]]
    assert 0 < context["dropped_messages"] < len(ids)
    assert context["dropped_messages"] % 2 == 0, "whole turns"
    assert sent(upstream)[0] == {"role": "system", "content": "Be brief."}
    assert sent(upstream)[-1]["content"].startswith("Now")
    hopeless = ask(http, session, "word " * 500)
    assert (hopeless.status_code, error_of(hopeless)["code"]) == (400, "context_length_exceeded")
    assert len(listed(http, session)) == 10


def test_a_window_that_is_known_is_kept_to_without_a_refusal(http: httpx2.Client, upstream: Provider) -> None:
    session, _ = long(http, "drop_oldest", "known")
    upstream.seen.clear()
    [answer] = said(http, session, "Now " + "word " * 60, parameters={"max_tokens": 250})
    assert answer["context"]["dropped_messages"] > 0
    assert len(upstream.seen) == 1


def test_one_whose_policy_is_error_says_what_to_do(http: httpx2.Client) -> None:
    session, _ = long(http, "error", "small")
    refused = ask(http, session, "Now " + "word " * 60)
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    assert "drop_oldest" in error["message"]
    assert len(listed(http, session)) == 8


def test_a_summary_stands_for_what_is_left_out_and_is_used_again(http: httpx2.Client, upstream: Provider) -> None:
    session, _ = long(http, "summarize", "small")
    [answer] = said(http, session, "Now " + "word " * 60)
    assert answer["context"]["summarized"] is True
    assert "word0 word1 word2" in sent(upstream)[0]["content"]
    asked = [x for x in upstream.seen if x.model == "summer"]
    assert len(asked) >= 1
    assert "0 word" in asked[0].json["messages"][1]["content"]
    upstream.seen.clear()
    [later] = said(http, session, "Later.")
    assert later["context"]["summarized"] is True
    assert [x.model for x in upstream.seen] == ["small"], "the summary was there already"


def test_without_a_summary_the_oldest_are_left_out(http: httpx2.Client, upstream: Provider) -> None:
    upstream.scripts["summer"] = lambda x: scripts.status(x, "500")
    session, _ = long(http, "summarize", "small")
    [answer] = said(http, session, "Now " + "word " * 60)
    assert (answer["context"]["policy"], answer["context"]["summarized"]) == ("summarize", False)
    assert answer["context"]["dropped_messages"] > 0
