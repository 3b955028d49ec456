"""The frame around Gradio's document: our language and policy, packed for those who take it, others untouched."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from medllm.page.middleware import POLICY, Frame

DOCUMENT = f'<!doctype html><html style="" lang="en"><head><title>x</title></head><body>{"語" * 5000}</body></html>'


def asked(path: str, **headers: str) -> httpx.Response:
    async def ask():
        routes = [Route("/", lambda _: HTMLResponse(DOCUMENT)), Route("/other", lambda _: PlainTextResponse("same"))]
        app = Starlette(routes=routes, middleware=[Middleware(Frame)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("coding", ["gzip, br", "identity"])
def test_the_document_gets_language_policy_and_first_screen_packed_or_not(coding):
    answer = asked("/", **{"accept-encoding": coding})
    assert 'lang="ja"' in answer.text
    assert 'id="medllm-first"' in answer.text
    assert "語" * 5000 in answer.text
    assert answer.headers["content-security-policy"] == POLICY
    assert (answer.headers.get("content-encoding") == "gzip") == ("gzip" in coding)


def test_other_addresses_pass_through_untouched():
    answer = asked("/other", **{"accept-encoding": "gzip"})
    assert answer.text == "same"
    assert "content-security-policy" not in answer.headers
