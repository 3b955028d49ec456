"""The two addresses of the blind review: the next pair, and a vote; a vote is answered only after it is safe."""

import json

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from medllm.errors import DataError, HubError
from medllm.page.context import PageContext
from medllm.page.review.html import agreement_line, no_more, pair_form, thanks
from medllm.page.review.votes import VoteBox
from medllm.votes.vote import use_of

LARGEST_VOTE = 20_000
"""Bytes of a vote; a complete form with a full comment has a tenth of this size."""


def review_routes(page: PageContext, ballot: VoteBox) -> list[BaseRoute]:
    """Return the addresses, over one vote box."""

    def pair(request: Request) -> Response:
        rater, asked = ballot.rater(request.query_params.get("rater", "")[:200]), request.query_params.get("at")
        at = int(asked) if asked and asked.isdecimal() and len(asked) < 9 else None if asked else ballot.place(rater)
        found = ballot.review.pair(rater, at) if at is not None else None
        if found is None or at is None:
            return HTMLResponse(no_more())
        question = page.results.question(found.key)
        language = "en" if request.query_params.get("lang") == "en" else "ja"
        return HTMLResponse(pair_form(found, question, at, use_of(question, ballot.review.cutoff), language))

    async def vote(request: Request) -> Response:
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return PlainTextResponse("votes are JSON", status_code=415)
        form = await _body(request)
        if not isinstance(form, dict):
            return PlainTextResponse("this is no vote", status_code=400)
        try:
            return HTMLResponse(await run_in_threadpool(_kept, page, ballot, form))
        except DataError as fault:
            return PlainTextResponse(str(fault), status_code=409)
        except (HubError, OSError):
            return PlainTextResponse("not safe yet: try again", status_code=503)

    return [Route("/medllm/pair", pair, methods=["GET"]), Route("/medllm/vote", vote, methods=["POST"])]


async def _body(request: Request) -> object:
    """Return the JSON of a request, or None if it is too large or not JSON."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > LARGEST_VOTE:
            return None
    try:
        form: object = json.loads(data)
    except ValueError:
        return None
    return form


def _kept(page: PageContext, ballot: VoteBox, form: dict[str, object]) -> str:
    """Store the vote, then confirm it."""
    rater = ballot.rater(str(form.get("rater", ""))[:200])
    vote = ballot.cast({**form, "rater": rater})
    at = form["at"]
    assert isinstance(at, int)
    pair = ballot.review.pair(rater, at)
    assert pair is not None
    return thanks(pair, vote, page.results.question(pair.key)) + agreement_line(ballot.agreement())
