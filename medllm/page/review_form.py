"""Blind review as HTML and addresses: a pair with its form, the vote on it, and a block with its models named."""

import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from medllm.errors import DataError, HubError
from medllm.exam.extract.completion import sentences
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.page.context import PageContext
from medllm.page.html import LONGEST_CARD, both, percent, question_card, safe, word
from medllm.page.markdown import has_form, reply_html
from medllm.page.review import BLOCK, OFFERED, ROLES, ReviewPair, rater_number
from medllm.page.routes import INERT, attachment
from medllm.page.vote_box import NAMED, VoteBox
from medllm.votes.agreement import Shared
from medllm.votes.statistics import report_lines, vote_report, votes_csv
from medllm.votes.vote import LONGEST_NOTE, REASONS, Use, Vote, use_of

LARGEST_VOTE = 20_000
"""Bytes of a vote; a complete form with a full comment has a tenth of this size."""

FEWEST_TIMED = 5
"""A rater's votes below which the time left is not estimated."""


def signed_in_name(request: Request) -> str | None:
    """Return the user name of the Hugging Face account that signed in; None without one, or when it has expired."""
    signed = request.scope.get("session", {}).get("oauth_info") or {}
    if signed.get("expires_at", math.inf) < time.time() or "userinfo" not in signed:
        return None
    return str(gr.OAuthProfile(signed["userinfo"]).username)


def review_routes(page: PageContext, ballot: VoteBox) -> list[BaseRoute]:
    """Return the addresses, over one vote box. Where raters sign in, a rater is their account, whatever is sent."""
    box = ReviewPages(page, ballot)
    rater_of = box.rater_of

    def pair(request: Request) -> Response:
        query = request.query_params
        rater, block = rater_of(request, query.get("rater", "")), _number(query.get("block"))
        if rater is None:
            return _signed_out()
        language = "en" if query.get("lang") == "en" else "ja"
        try:
            if block is not None:
                return HTMLResponse(box.block(rater, block - 1))
            at = _number(query.get("at")) if query.get("at") else ballot.place(rater)
            return HTMLResponse(box.pair(rater, at, language))
        except DataError as fault:
            return _unreadable(fault)

    async def vote(request: Request) -> Response:
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return PlainTextResponse("votes are JSON", status_code=415)
        form = await _body(request)
        if not isinstance(form, dict):
            return PlainTextResponse("this is no vote", status_code=400)
        rater = rater_of(request, form.get("rater", ""))
        if rater is None:
            return _signed_out()
        try:
            return HTMLResponse(await run_in_threadpool(_kept, box, {**form, "rater": rater}))
        except DataError as fault:
            if fault.code == "preferences.broken-vote":
                return _unreadable(fault)
            return PlainTextResponse(str(fault), status_code=409)
        except (HubError, OSError):
            return PlainTextResponse("not safe yet: try again", status_code=503)

    def own(request: Request) -> Response:
        """The rater's own votes of complete blocks as CSV; as text the figures of all votes, once a block is."""
        rater = rater_of(request, request.query_params.get("rater", ""))
        if rater is None:
            return _signed_out()
        try:
            votes = ballot.own_votes(rater)
            if not votes:
                return PlainTextResponse("no block of this rater is complete", status_code=403)
            if request.path_params["form"] == "csv":
                return attachment(votes_csv(votes), "votes.csv", "text/csv")
            lines = report_lines(vote_report(ballot.journal.votes()))
        except DataError as fault:
            return _unreadable(fault)
        return PlainTextResponse("\n".join(lines), headers=INERT)

    return [
        Route("/medllm/pair", pair, methods=["GET"]),
        Route("/medllm/vote", vote, methods=["POST"]),
        Route("/medllm/votes.{form:str}", own, methods=["GET"]),
    ]


def _signed_out() -> Response:
    """Return the panel that asks a rater to sign in."""
    return HTMLResponse(f'<p class="card panel" role="status">{both("sign_in_first")}</p>', status_code=401)


def _number(given: str | None) -> int | None:
    return int(given) if given and given.isdecimal() and len(given) < 9 else None


def _unreadable(fault: DataError) -> Response:
    """Return the panel for a journal that cannot be read; its cause is for the operator and not for readers."""
    sys.stderr.write(f"medllm: {fault} The page takes no votes until then.\n")
    return HTMLResponse(f'<p class="card panel" role="alert">{both("votes_unreadable")}</p>', status_code=503)


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


def _kept(box: "ReviewPages", form: dict[str, Any]) -> str:
    """Store the vote, then return what the rater sees next: the next pair, or the block that is now complete."""
    rater = str(form["rater"])
    box.ballot.cast(form)
    at, language = form["at"], "en" if form.get("language") == "en" else "ja"
    saved = f'<p class="card panel" tabindex="-1" id="saved" role="status">{both("thanks")}</p>'
    if box.ballot.closed(rater, at):
        return saved + box.block(rater, at // BLOCK)
    return saved + box.pair(rater, box.ballot.place(rater), language)


class ReviewPages:
    """What a rater sees: a pair to judge, or a complete block."""

    def __init__(self, page: PageContext, ballot: VoteBox) -> None:
        self.page, self.ballot = page, ballot

    def rater_of(self, request: Request, given: object) -> str | None:
        """Return the rater's number: of the account that signed in, where raters do; None where none has."""
        if not self.page.sign_in:
            return self.ballot.rater(str(given)[:200])
        name = signed_in_name(request)
        return None if name is None else self.ballot.rater(f"{NAMED}{name}")

    def pair(self, rater: str, at: int | None, language: str) -> str:
        """Return the pair at a position with the rater's progress; a pair of a complete block shows that block."""
        pair = self.ballot.review.pair(rater, at) if at is not None else None
        place = self.ballot.place(rater)
        if pair is None or at is None:
            review = self.ballot.review
            reason = "not_assigned" if review.assignment and not review.size(rater) else "no_pairs"
            return no_more(reason) + self._figures() + self._progress(rater, place)
        if self.ballot.closed(rater, at):
            return self.block(rater, at // BLOCK)
        question = self.page.results.question(pair.key)
        use = use_of(question, self.ballot.review.cutoff)
        ids = self.ballot.votes_on(rater, pair)
        earlier = self._earlier(ids)
        form = pair_form(pair, question, at, use, language, earlier, ids[-1] if ids else "")
        remark = self._remark(rater, at, place, earlier, voted=bool(ids))
        return self._progress(rater, place, at) + remark + form + self._figures()

    def _earlier(self, ids: Sequence[str]) -> Vote | None:
        """Return the rater's last vote on a pair; None if there is none here."""
        if not ids:
            return None
        return self.ballot.journal.vote(ids[-1])

    def _remark(self, rater: str, at: int, place: int, earlier: Vote | None, *, voted: bool) -> str:
        """Return what is special about a pair, and the ways to the pair before and to the next one.

        `voted`: the rater has judged it before; `earlier` is that vote, where this machine still has it.
        """
        block, parts, ways = self.ballot.review.block(rater, at), [], []
        if at > block.start:
            ways.append(f'<button type="button" data-pair="{at - 1}" id="correct">{both("correct_before")}</button>')
        if voted:
            choice = both(f"choose_{earlier.choice}") if earlier else ""
            parts.append(f"{both('correcting', n=at + 1)} {choice}")
            ways.append(f'<button type="button" data-pair="">{both("back_to_next")}</button>')
        elif place == at == block.stop - 1:
            parts.append(both("last_of_block"))
        remark = f'<p class="quiet" id="review-remark">{" ".join(parts)}</p>' if parts else ""
        return (f'<div class="tools">{"".join(ways)}</div>' if ways else "") + remark

    def _progress(self, rater: str, place: int, at: int | None = None) -> str:
        """Return how much of this block and of everything is judged, the time left, and the complete blocks."""
        total = self.ballot.review.size(rater)
        block = self.ballot.review.block(rater, min(place if at is None else at, max(total - 1, 0)))
        done = max(0, min(place, block.stop) - block.start)
        text = both(
            "review_progress", n=block.start // BLOCK + 1, done=done, size=len(block), place=f"{place:,}",
            total=f"{total:,}",
        )  # fmt: skip
        number = rater_number(rater)
        spent = self.ballot.journal.spent(number)
        if len(spent) >= FEWEST_TIMED and done < len(block):
            left = max(1, round(statistics.median(spent) * (len(block) - done) / 60))
            text += f" · {both('minutes_left', n=left)}"
        complete = place // BLOCK + (place == total and place % BLOCK > 0)
        names = "".join(
            f'<button type="button" data-block="{number}">{both("block_number", n=number)}</button>'
            for number in range(1, complete + 1)
        )
        shown = f'<details><summary>{both("blocks_done")}</summary><div class="tools">{names}</div></details>'
        return (
            f'<div class="progress"><progress max="{len(block)}" value="{done}" aria-labelledby="progress-text">'
            f'</progress><span id="progress-text">{text}</span>{shown if complete else ""}</div>'
        )

    def block(self, rater: str, number: int) -> str:
        """Return a complete block: each pair with its models, their verdicts and the rater's vote."""
        place = self.ballot.place(rater)
        block = self.ballot.review.block(rater, number * BLOCK)
        if number < 0 or not len(block) or not self.ballot.closed(rater, block.start):
            return no_more("block_open") + self._progress(rater, place)
        choices = {vote.vote_id: vote.choice for vote in self.ballot.journal.votes()}
        rows = "".join(self._judged(rater, at, choices) for at in block)
        heads = "".join(f'<th scope="col">{head}</th>' for head in (both("which"), "A", "B", both("your_vote")))
        tools = f'<a data-own="medllm/votes.csv" href="#" download>{both("own_votes")}</a>'
        if place < self.ballot.review.size(rater):
            tools += f'<button type="button" data-pair="" id="next-block">{both("next_block")}</button>'
        return (
            f'{self._progress(rater, place)}<section class="card"><h2>{both("block_done", n=number + 1)}</h2>'
            f"<p>{both('block_names')}</p>"
            '<div class="scroll" tabindex="0" role="region" aria-label="A / B"><table class="figures judged">'
            f'<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div><div class="tools">{tools}</div>'
            f'<details class="prompt" data-own="medllm/votes.txt"><summary>{both("vote_figures")}</summary>'
            f'<pre tabindex="0" lang="en">{both("fetching")}</pre></details></section>{self._figures()}'
        )

    def _judged(self, rater: str, at: int, choices: Mapping[str, str]) -> str:
        pair = self.ballot.review.pair(rater, at)
        assert pair is not None
        question = self.page.results.question(pair.key)
        last = next((choices[vote] for vote in reversed(self.ballot.votes_on(rater, pair)) if vote in choices), "")
        sides = "".join(
            f"<td><b>{safe(record.model)}</b><small>{safe((record.answer or '–').upper())} "
            f"{both('unparsed' if record.answer is None else 'right' if record.correct else 'wrong')}</small></td>"
            for record in (pair.a, pair.b)
        )
        return (
            f'<tr><th scope="row">{safe(question.question_id)}</th>{sides}'
            f"<td>{both(f'choose_{last}') if last else '–'}</td></tr>"
        )

    def _figures(self) -> str:
        return agreement_line(self.ballot.agreement())


def pair_form(
    pair: ReviewPair,
    question: Question,
    at: int,
    use: Use,
    language: str = "ja",
    earlier: Vote | None = None,
    supersedes: str = "",
) -> str:
    """Return one pair with the form of a vote, filled with the rater's earlier vote if it corrects one.

    A list of choices can be in one language only.
    """
    sides = "".join(_side(name, record, earlier) for name, record in (("a", pair.a), ("b", pair.b)))
    keys = dict(zip(OFFERED, ("1", "2", "3", "4", "0"), strict=True))
    buttons = "".join(
        f'<button type="button" data-choose="{choice}" data-key="{key}" aria-keyshortcuts="{key}" disabled>'
        f"<kbd>{key}</kbd> {both(f'choose_{choice}')}</button>"
        for choice, key in keys.items()
    )
    roles = "".join(f'<option value="{role}">{safe(word(f"role_{role}", language))}</option>' for role in ROLES)
    note = safe(earlier.note) if earlier else ""
    return (
        f'<form class="vote" data-at="{at}" data-shown="{pair.shown}" data-supersedes="{supersedes}">'
        f"{question_card(pair.key, question)}"
        f'<p class="quiet">{both("review_how")}</p><div class="pair">{sides}</div>'
        f"<fieldset><legend>{both('review_more')}</legend>"
        f'<label for="vote-role">{both("role")}</label>'
        f'<select id="vote-role" name="role"><option value="">–</option>{roles}</select>'
        f'<label for="vote-note">{both("note")}</label>'
        f'<textarea id="vote-note" name="note" rows="2" maxlength="{LONGEST_NOTE}">{note}</textarea></fieldset>'
        f'<p class="quiet">{_use(use)}</p>'
        f'<label><input type="checkbox" name="consent"> {both("consent")}</label>'
        f'<div class="choose">{buttons}</div><p class="quiet keys">{both("review_keys")}</p>'
        f'<p class="draft-status quiet" hidden>{both("draft_kept")}</p>'
        f'<p class="vote-status" role="status" aria-live="polite"></p></form>'
    )


def _side(name: str, record: Record, earlier: Vote | None) -> str:
    shown = sentences(record.completion[:LONGEST_CARD])
    faulty = _places(getattr(earlier, f"faulty_{name}", ()), shown)
    reasons = getattr(earlier, f"reasons_{name}", ())
    marked = "".join(
        f'<button type="button" data-sentence="{place}" aria-pressed="{str(place in faulty).lower()}">'
        f"{safe(part)}</button>"
        for place, part in enumerate(shown)
    )
    boxes = "".join(
        f'<label><input type="checkbox" name="reasons_{name}" value="{reason}"'
        f"{' checked' if reason in reasons else ''}> {both(f'reason_{reason}')}</label>"
        for reason in REASONS
    )
    letter = name.upper()
    text = f'<div class="text" tabindex="0" role="region" aria-labelledby="side-{name}">{marked}</div>'
    if has_form(record.completion):
        text = (
            f'<div class="shown" tabindex="0" role="region" aria-labelledby="side-{name}">'
            f"{reply_html(record.completion)}</div>"
            f'<details class="sentences"{" open" if faulty else ""}><summary>{both("review_raw")}</summary>'
            f"{text}</details>"
        )
    return (
        f'<div class="card side" data-side="{name}">'
        f'<h2 id="side-{name}">{letter}</h2>{text}'
        f"<fieldset><legend>{both('reasons_of', side=letter)}</legend>{boxes}</fieldset></div>"
    )


def _places(faulty: Sequence[str], parts: Sequence[str]) -> set[int]:
    """Return the numbers of sentences that a vote holds as text: of equal sentences, as many as the vote holds."""
    wanted, named = Counter(faulty), set()
    for place, part in enumerate(parts):
        if wanted[part.strip()] > 0:
            wanted[part.strip()] -= 1
            named.add(place)
    return named


def _use(use: Use) -> str:
    return both("use_training" if use == "training" else "use_evaluation_only")


def no_more(reason: str = "no_pairs") -> str:
    """Return the message for a rater who has seen every pair, or (`never_pairs`) where there is none."""
    return f'<p class="card panel" role="status">{both(reason)}</p>'


def agreement_line(agreement: Shared) -> str:
    """Return the figures of agreement, with the counts behind them."""
    text = both("agreement_counts", votes=agreement.votes, raters=agreement.raters, pairs=agreement.pairs)
    kappa = agreement.fleiss
    if kappa.value == kappa.value:
        ends = f" [{kappa.low:.2f}, {kappa.high:.2f}]" if kappa.low == kappa.low else ""
        interval = f"κ = {kappa.value:.2f}{ends}".replace("-", "−")
        text += f" {both('agreement_equal', share=percent(agreement.equal))} {safe(interval)}"
    return f'<p class="quiet" id="agreement">{text}</p>'
