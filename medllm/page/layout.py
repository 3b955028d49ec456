"""The page as a whole: header, tabs in their order, the bar, and the state that a link restores."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from medllm.exam.record import PROMPTS
from medllm.page import compare_tab, scores_tab
from medllm.page.components import I18N, Stops, block, on
from medllm.page.context import PageContext
from medllm.page.grid import STAGES
from medllm.page.html import CATEGORIES, both, fault_panel, hidden, safe, word
from medllm.page.results import Origin
from medllm.page.review_form import no_more
from medllm.page.routes import functions
from medllm.page.scores_tab import set_filters
from medllm.page.selection import Wanted, options

FILTERED = ("model", "outcome", "exam", "year", "section", "category", "text", "find", "sort", "measure")
"""The parameters of an address that set Scores and Flips."""
BACK = "window.addEventListener('popstate', () => trigger('back', { search: location.search }))"


def page_of(page: PageContext) -> gr.Blocks:
    """Build the page over some results."""
    stops = Stops()
    with gr.Blocks(title="medllm", analytics_enabled=False) as demo:
        block(header(page.results.origin.title))
        drawn: dict[str, gr.Tab] = {}
        with gr.Tabs(selected="compare", overflow_behavior="wrap") as tabs:
            with gr.Tab(I18N("compare"), id="compare") as drawn["compare"]:
                compare = compare_tab.draw(page, stops)
            with gr.Tab(I18N("scores"), id="scores") as drawn["scores"]:
                scores = scores_tab.draw(page)
            with gr.Tab(I18N("flips"), id="flips") as drawn["flips"]:
                flips = scores_tab.draw_flips(page)
            with gr.Tab(I18N("ask"), id="ask") as drawn["ask"]:
                compare_tab.draw_ask(page, stops)
            with gr.Tab(I18N("review"), id="review") as drawn["review"]:
                draw_review(page)
            with gr.Tab(I18N("about"), id="about") as drawn["about"]:
                block(about(page))
        block('<p id="page-status" role="status" aria-live="polite"></p>')
        block(bar(page.results.origin, live=page.live is not None), elem_id="bar")
        on(drawn["scores"].select, scores.show, scores.controls, scores.figures)
        for name, tab in drawn.items():
            on(tab.select, None, None, None, js=f"() => window.medllm.remember({{ tab: '{name}' }})")
        for name, function in functions(page).items():
            gr.api(function, api_name=name)
        _bind_opening(page, tabs, compare, scores, flips)
        _bind_links(demo, tabs, list(drawn), compare, scores, flips)
    return demo


def _bind_opening(page: PageContext, tabs: gr.Tabs, compare: Any, scores: Any, flips: Any) -> None:  # noqa: ANN401
    """Bind clicks: a number opens its questions, a question opens Compare."""

    def questions(event: gr.EventData, *filters: Any) -> list[Any]:  # noqa: ANN401  (values of gradio's controls)
        values = dict(zip(("exam", "year", "section", "category"), filters[:4], strict=True))
        values = {name: value or "" for name, value in values.items()} | {"text": "1" if filters[4] else ""}
        values |= {
            name: str(value)
            for name in ("model", "outcome", "exam", "year", "section", "category")
            if (value := getattr(event, name, None))
        }
        return [gr.Tabs(selected="flips"), *flips.opened(Wanted.read(values, page.results))]

    def question(event: gr.EventData, *chosen: Any) -> list[Any]:  # noqa: ANN401  (values of gradio's controls)
        walk = flips.wanted(*chosen).query()
        return [gr.Tabs(selected="compare"), *compare_tab.find(compare, getattr(event, "key", None), walk)]

    opened = on(scores.figures.open, questions, scores.controls, [tabs, *flips.controls, flips.listed, flips.shown])
    flips.remember(opened.then, tab="flips")
    picked = on(
        flips.listed.pick,
        question,
        flips.controls,
        [tabs, *compare.shown, compare.notice],
        cancels=list(compare.answers),
    )
    compare.settle(flips.listed.pick, picked)
    on(
        picked.then,
        None,
        [compare.key],
        None,
        js="(key) => window.medllm.opened(key)",
    )
    listed = on(compare.place.list, lambda: gr.Tabs(selected="flips"), None, tabs)
    on(listed.then, None, None, None, js="() => window.medllm.listed()")


def _bind_links(demo: gr.Blocks, tabs: gr.Tabs, names: list[str], compare: Any, scores: Any, flips: Any) -> None:  # noqa: ANN401
    """Restore from an address the view from which it was copied."""

    def restore(request: gr.Request) -> list[Any]:
        return view(dict(request.query_params))

    def go_back(event: gr.EventData) -> list[Any]:
        query = dict(parse_qsl(str(getattr(event, "search", ""))[:2000].lstrip("?")))
        return view({"tab": names[0], "q": compare.page.shelf.opening.key} | query)

    def view(query: dict[str, str]) -> list[Any]:
        tab, wanted = query.get("tab"), query.get("q")
        opened = gr.Tabs(selected=tab) if tab in names else gr.skip()
        walk = Wanted.read(query, compare.page.results).query() if query.get("walk") else ""
        same = [*[gr.skip()] * len(compare.shown), compare.page.staleness()]
        question = compare_tab.find(compare, wanted, walk) if wanted else same
        if not any(query.get(name) for name in FILTERED):
            figures = scores.show("", "", "", "", False, "accuracy") if tab == "scores" else gr.skip()
            untouched = [gr.skip()] * len(scores.controls), [gr.skip()] * (len(flips.controls) + 2)
            return [opened, *question, *untouched[0], figures, *untouched[1]]
        asked = Wanted.read(query, compare.page.results)
        chosen = [*set_filters(asked.narrow), "points" if query.get("measure") == "points" else "accuracy"]
        return [opened, *question, *chosen, scores.show(*chosen), *flips.opened(asked)]

    parts = [*scores.controls, scores.figures, *flips.controls, flips.listed, flips.shown]
    everything = [tabs, *compare.shown, compare.notice, *parts]
    loaded = on(demo.load, restore, None, everything)
    on(block(js_on_load=BACK).back, go_back, None, everything, cancels=list(compare.answers))
    on(loaded.then, None, None, None, js="() => window.medllm.restored()")


def page_of_fault(fault: Exception) -> gr.Blocks:
    """Build the page for an error: the fault and its remedy, in the reader's language."""
    with gr.Blocks(title="medllm", analytics_enabled=False) as demo:
        block(header())
        block(fault_panel(fault))
        block(bar(None, live=False), elem_id="bar")
        on(demo.load, None, None, None, js="() => window.medllm.restored()")
    return demo


POINTS = ("method", "prompts_used", "intervals_used", "states_used", "limits", "privacy_used", "citation")


def about(page: PageContext) -> str:
    """Return the whole tab as HTML."""
    parts = "".join(f"<h2>{both(f'about_{name}')}</h2><p>{both(f'about_{name}_text')}</p>" for name in POINTS)
    return (
        f'<section class="card about">{parts}{_bibtex()}{_terms(page)}<h2>{both("about_revisions")}</h2>'
        f"{_revisions(page)}{_runs(page)}<h2>API</h2><p>{both('about_api')}</p>{_example()}</section>"
    )


def _revisions(page: PageContext) -> str:
    origin = page.results.origin
    values = [f"{both('source')}: {_source(origin)}"]
    values += [
        f"{both('model')} <b>{safe(model)}</b>: <code>{safe(note)}</code>"
        for model, note in page.notes().items()
        if note
    ]
    if origin.dated:
        values.append(f"{both('dated')}: <time>{safe(origin.dated)}</time>")
    if page.live is not None:
        values.append(f"{both('live')}: <code>{safe(page.live.name)}</code>")
    return "<ul>" + "".join(f"<li>{line}</li>" for line in values) + "</ul>"


def _source(origin: Origin) -> str:
    """Return the name of the results and their revision; a dataset of the Hub is a link."""
    name = f"{safe(origin.name)}{safe(f'@{origin.revision}') if origin.revision else ''}"
    if origin.revision and HUB.fullmatch(origin.name):
        address = f"https://huggingface.co/datasets/{safe(origin.name)}/tree/{safe(origin.revision)}"
        return f'<a href="{address}" rel="noopener"><code>{name}</code></a>'
    return f"<code>{name}</code>"


def _terms(page: PageContext) -> str:
    """Return what the names of models and categories mean, of those that the results hold; empty where none has one."""
    models = [name for name in STAGES if name in page.results.models]
    terms = [(safe(name), both(f"term_{name}")) for name in models]
    words_used = {part for name in options(page.results, "category") for part in name.split("/")}
    terms += [(both(f"kind_{part}"), both(f"category_{part}")) for part in CATEGORIES if part in words_used]
    listed = "".join(f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in terms)
    return f"<h2>{both('about_terms')}</h2><dl>{listed}</dl>" if terms else ""


PAPER = "https://arxiv.org/abs/2504.18080"
BIBTEX = """@misc{kawakami2025stabilizing,
  title  = {Stabilizing Reasoning in Medical LLMs with Continued Pretraining and Reasoning Preference Optimization},
  author = {Kawakami, Wataru and Suzuki, Keita and Iwasawa, Junichiro},
  year   = {2025},
  eprint = {2504.18080},
  archivePrefix = {arXiv}
}"""


def _bibtex() -> str:
    return f'<p><a href="{PAPER}" rel="noopener">{PAPER}</a></p><pre tabindex="0"><code>{safe(BIBTEX)}</code></pre>'


RUN_FIELDS = (
    "model", "prompt", "template", "shots", "engine", "dtype", "quantization", "temperature", "samples", "seed",
    "format", "replies",
)  # fmt: skip
"""What the page shows of each run: how the model was asked and its replies were decoded."""

HUB = re.compile(r"[\w][\w.-]*/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def _runs(page: PageContext) -> str:
    """Return how each model was asked, as the runs record it; a model that has a commit on the Hub is a link."""
    fields = [name for name in RUN_FIELDS if any(run.get(name) not in (None, "") for run in page.results.runs)]
    if not fields:
        return ""
    rows = {tuple(_run_cell(page, run, name) for name in fields): None for run in page.results.runs}
    head = "".join(f'<th scope="col">{both(f"run_{name}")}</th>' for name in fields)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="runs"><table class="figures runs">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _run_cell(page: PageContext, run: Mapping[str, object], name: str) -> str:
    value = run.get(name)
    source, commit = str(run.get("source") or ""), str(run.get("revision") or run.get("model_revision") or "")
    known = page.results.origin.marking != "simulated" and HUB.fullmatch(source) and COMMIT.fullmatch(commit)
    if name == "model" and known:
        return f'<a href="https://huggingface.co/{safe(source)}/tree/{commit}" rel="noopener">{safe(value)}</a>'
    if name == "prompt" and value in PROMPTS:
        return both(str(value))
    return "–" if value in (None, "") else safe(f"{value:,}" if name == "replies" and isinstance(value, int) else value)


def _example() -> str:
    code = 'from gradio_client import Client\nprint(Client("ADDRESS").predict(api_name="/scores"))'
    return f'<pre tabindex="0"><code lang="en">{safe(code)}</code></pre>'


def header(title: str | None = None) -> str:
    """Return the title (a recipe's own, or the page's), the subject of the page, and the language switch."""
    switch = "".join(
        f'<button type="button" lang="{language}" data-speak="{language}" aria-pressed="false">{name}</button>'
        for language, name in (("ja", "日本語"), ("en", "English"))
    )
    return (
        f'<a class="skip" href="#bar" data-skip>{both("skip")}</a>'
        f'<header class="top"><div><h1>{safe(title) if title else both("title")}</h1><p>{both("lead")}</p></div>'
        f'<nav aria-label="日本語 / English">{switch}</nav></header>'
    )


def bar(origin: Origin | None, *, live: bool) -> str:
    """Return the disclaimer and the kind of the answers: recorded, live or simulated, with source and revision."""
    marking = "recorded" if origin is None or origin.marking == "miniature" else origin.marking
    chips = f'<span class="chip">{both(marking)}</span>' + (f'<span class="chip">{both("live")}</span>' if live else "")
    hint = f"{origin.marking if origin else 'recorded'}_hint"
    name = "" if origin is None else safe(origin.name) + (f"@{safe(origin.revision[:12])}" if origin.revision else "")
    return (
        f'<aside class="bar" id="page-ready"><strong>⚠ {both("disclaimer")}</strong>{chips}'
        f'<span class="from">{both(hint)} {name}</span><span class="short">⚠ {both("bar_short")}</span>'
        f'<button type="button" data-fold-bar><span aria-hidden="true">▾</span>{hidden("bar_fold")}</button></aside>'
    )


SIGN_IN = "Hugging Face でサインイン · Sign in"
SIGN_OUT = "サインアウト · Sign out"
"""The words of Gradio's own button, which compares them: they are in both languages."""


def draw_review(page: PageContext) -> None:
    """Draw the tab on which readers vote: the browser fills its box, and votes use a separate address, not an event."""
    ballot = page.ballot
    if ballot is None:
        block(f'<p class="card panel">{both("review_off")}</p>')
        return
    block(f'<p class="lead">{both("review_lead")}</p>')
    if not ballot.review.candidates:
        block(no_more("never_pairs"))
        return
    if page.sign_in:
        gr.LoginButton(SIGN_IN, f"{SIGN_OUT} ({{}})", variant="secondary", size="sm", icon=None, elem_id="sign-in")
    away = " / ".join(word("not_saved", language) for language in ("ja", "en"))
    name = (
        f'<p class="quiet">{both("signed_in_how")}</p>'
        if page.sign_in
        else f'<p class="rater"><label for="rater-name">{both("rater_name")}</label>'
        '<input id="rater-name" maxlength="60" autocomplete="off" aria-describedby="rater-how">'
        f'<small id="rater-how">{both("rater_how")}</small></p>'
    )
    block(
        f'{name}<div id="review-box" data-unsaved="{safe(away)}" data-away="{safe(away)}">'
        f'<p role="status">{both("fetching")}</p></div>',
        js_on_load="window.medllm.review()",
    )
