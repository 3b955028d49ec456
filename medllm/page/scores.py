"""The Scores tab as HTML: dumbbells with whiskers, the same numbers as a table, and where explaining costs most."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.stability.paired import EXPLAINING, PAIRS, Pair
from medllm.exam.stability.report import ScoreChange, ScoreRow, Share
from medllm.exam.statistics import Estimate, QuestionSample, Ratio
from medllm.page.html import both, bound, category_html, hidden, percent, safe, signed, word
from medllm.page.results import RecordedResults
from medllm.page.selection import Filter, Mask, Outcome, clusters, labels, options, points, sittings

Measure = Literal["accuracy", "points"]

SLICES = (("year", "year"), ("section", "section"), ("category", "category"), ("benchmark", "exam"))
"""The breakdowns of the change: a question's field, and the name of its filter."""


def scores(results: RecordedResults, narrow: Filter, measure: Measure) -> str:
    """Return the whole tab below its filters."""
    mask = narrow.mask(results)
    count = int(np.count_nonzero(mask))
    if not count:
        return f'<p class="card panel" role="status">{both("no_rows")}</p>'
    lines = score_lines(results, mask, measure)
    harms = {column: int(np.count_nonzero(chosen & mask)) for column, chosen in results.harmful.items()}
    slices = "".join(_slice(results, narrow, measure, field, name) for field, name in SLICES)
    cells = slices.count("--v:")
    slices = (f'<p class="note">{both("many_comparisons", n=f"{cells:,}")}</p>' if cells else "") + slices
    return (
        f'<section class="card"><h2>{_title(results.shown)}</h2><span class="sr" id="behind">'
        f"{both('open_behind')}</span>{_legend(count, measure, results.shown)}{_dumbbells(lines)}"
        f"<h3>{both('same_numbers')}</h3>{_table(lines, harms)}</section>{slices}"
    )


def _title(prompts: Sequence[PromptStyle]) -> str:
    if len(prompts) > 1:
        return both("scores_title")
    return both("scores_of", prompt=word(prompts[0], "ja"), en=word(prompts[0], "en"))


def _legend(count: int, measure: Measure, prompts: Sequence[PromptStyle]) -> str:
    label = both("points_measure" if measure == "points" else "accuracy_measure")
    shown = "".join(f'<span><i class="{prompt}"></i>{both(prompt)}</span>' for prompt in prompts)
    return (
        f'<p class="legend">{shown}<span>{label}</span><span>n = {count:,}</span><span>{both("intervals")}</span></p>'
    )


def _dumbbells(lines: Sequence[ScoreRow]) -> str:
    shares = [share for line in lines for share in line.shares.values() if share]
    if not shares:
        return ""
    ticks = round_ticks(min(share.low for share in shares), max(share.high for share in shares))
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> str:
        return f"{(value - low) / (high - low) * 100:.2f}%"

    grid = "".join(f'<i class="grid" style="left:{at(tick)}"></i>' for tick in ticks)
    rows = "".join(_dumbbell(line, grid, at) for line in lines)
    axis = "".join(f'<span style="left:{at(tick)}">{tick * 100:.0f}%</span>' for tick in ticks)
    return (
        f'<div class="tracks" aria-hidden="true">{rows}'
        '<div class="track-row"><div class="name"></div><div class="track axis">'
        f'{axis}</div><div class="delta"></div></div></div>'
    )


def round_ticks(least: float, most: float) -> list[float]:
    """Return at most six round numbers, 5, 10, 20 or 25 points apart, that begin below all values and end above.

    >>> [round(tick, 2) for tick in round_ticks(0.37, 0.81)]
    [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """
    for step in (0.05, 0.1, 0.2, 0.25):
        first, last = math.floor(least / step + 1e-9), max(math.ceil(most / step - 1e-9), math.floor(least / step) + 1)
        if last - first <= 6:
            break
    return [number * step for number in range(first, last + 1)]


def _dumbbell(line: ScoreRow, grid: str, at: Callable[[float], str]) -> str:
    marks = ""
    if line.plain and line.explain and line.change:
        left, right = sorted((line.plain.value, line.explain.value))
        marks += f'<i class="between {line.change.sense}" style="left:{at(left)};right:calc(100% - {at(right)})"></i>'
    for prompt, share in line.shares.items():
        if share:
            marks += (
                f'<i class="whisker {prompt}" style="left:{at(share.low)};right:calc(100% - {at(share.high)})"></i>'
            )
            marks += f'<i class="dot {prompt}" style="left:{at(share.value)}"></i>'
    change = (
        f"{signed(line.change.value)}<small>[{bound(line.change.low)}, {bound(line.change.high)}]</small>"
        if line.change
        else "–"
    )
    sense = line.change.sense if line.change else ""
    return (
        f'<div class="track-row"><div class="name"><b>{safe(line.model)}</b>{_trial(line)}</div>'
        f'<div class="track">{grid}{marks}</div><div class="delta {sense}">{change}</div></div>'
    )


Harms = Mapping[tuple[str, PromptStyle], int]
"""How often each model chose a prohibited answer, by prompt."""


def _table(lines: Sequence[ScoreRow], harms: Harms) -> str:
    prompts = [prompt for prompt in PROMPTS if any(prompt in line.shares for line in lines)]
    pairs = [pair for pair in PAIRS if set(pair) <= set(prompts)]
    names = [both("model")]
    for prompt in prompts:
        names.append(f"{both(prompt)} %")
    for pair in pairs:
        if pair == EXPLAINING:
            names += ["Δ pt", f"✓→✗{hidden('lost_long')}", f"✗→✓{hidden('gained_long')}", both("retention") + " %"]
        else:
            names.append(f"Δ pt, {both(pair[1])} − {both(pair[0])}")
    if any(harms.values()):
        names.append(f"{both('prohibited')}<small>{' → '.join(both(prompt) for prompt in prompts)}</small>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in names)
    body = "".join(f"<tr>{_row(line, prompts, pairs)}{_harm(line.model, prompts, harms)}</tr>" for line in lines)
    return _scroll(
        "same_numbers", f'<table class="figures"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _row(line: ScoreRow, prompts: Sequence[PromptStyle], pairs: Sequence[Pair]) -> str:
    right: dict[PromptStyle, Outcome] = {
        "plain": "plain_right", "explain": "explain_right", "think": "think_right",
    }  # fmt: skip
    cells = [_share(line.shares.get(prompt), line.model, right[prompt]) for prompt in prompts]
    cells += [_changes(line, pair) for pair in pairs]
    return f'<th scope="row">{safe(line.model)}{_trial(line)}</th>{"".join(cells)}'


def _changes(line: ScoreRow, pair: Pair) -> str:
    """Return the cells of a change: for explaining with what was lost, gained and kept."""
    change, model = line.changes.get(pair), line.model
    if pair != EXPLAINING:
        shown = _change(change, model, "think_") if pair[0] == "plain" else _bare_change(change)
        return f"<td>{shown}{_pairs(line, pair)}</td>"
    kept = behind(percent(change.retention), model, "kept") if change else "–"
    return (
        f"<td>{_change(change, model)}{_pairs(line)}{_without_unread(change)}</td>"
        f"{_count(change, model, 'lost')}{_count(change, model, 'gained')}<td>{kept}</td>"
    )


def _harm(model: str, prompts: Sequence[PromptStyle], harms: Harms) -> str:
    """Return how often a model chose a prohibited answer under each prompt; no cell where no model did."""
    if not any(harms.values()):
        return ""
    counts = [harms.get((model, prompt), 0) for prompt in prompts]
    return f"<td>{behind(' → '.join(map(str, counts)), model, 'prohibited')}</td>"


def _trial(line: ScoreRow) -> str:
    """Mark a row whose numbers are of a part of the exam."""
    return f" <small>{both('trial')}</small>" if line.trial else ""


def _share(share: Share | None, model: str, outcome: Outcome) -> str:
    if share is None:
        return "<td>–</td>"
    number = behind(percent(share.value), model, outcome)
    return (
        f"<td>{number}<small>[{percent(share.low)}, {percent(share.high)}]</small>"
        f"<small>{share.right:,} / {share.asked:,}</small>{_unread(share.unread, model, outcome)}</td>"
    )


def _change(change: ScoreChange | None, model: str, prefix: Literal["", "think_"] = "", **narrower: str) -> str:
    if change is None:
        return "–"
    turned: dict[tuple[str, bool], Outcome] = {
        ("", True): "lost", ("", False): "gained", ("think_", True): "think_lost", ("think_", False): "think_gained",
    }  # fmt: skip
    number = behind(signed(change.value), model, turned[prefix, change.value <= 0], **narrower)
    return f"<b>{number}</b><small>[{bound(change.low)}, {bound(change.high)}]</small>"


def _pairs(line: ScoreRow, pair: Pair = ("plain", "explain")) -> str:
    """Return on how many questions a change rests, with a warning where one of its scores counts others too."""
    change = line.changes.get(pair)
    if change is None:
        return ""
    paired = change.lost + change.gained + change.kept + change.never
    asked = max((share.asked for prompt in pair if (share := line.shares.get(prompt))), default=paired)
    if paired == asked:
        return f"<small>n = {paired:,}</small>"
    return f'<small class="harm">⚠ {both("pairs_of", n=f"{paired:,}", all=f"{asked:,}")}</small>'


def _without_unread(change: ScoreChange | None) -> str:
    """Return the change over the questions with an answer in both replies, where some had none."""
    if change is None or not change.readable or change.delta_readable is None:
        return ""
    if change.readable == change.lost + change.gained + change.kept + change.never:
        return ""
    return f"<small>{both('readable_only', n=f'{change.readable:,}')} {signed(change.delta_readable)}</small>"


def _unread(count: int | None, model: str, outcome: Outcome) -> str:
    """Return how many replies hold no answer, beside the score under their prompt."""
    lists: dict[Outcome, Outcome] = {
        "plain_right": "plain_unparsed", "explain_right": "explain_unparsed", "think_right": "think_unparsed",
    }  # fmt: skip
    return f"<small>{behind(f'? {count:,}', model, lists[outcome])} {both('unparsed')}</small>" if count else ""


def _bare_change(change: ScoreChange | None) -> str:
    if change is None:
        return "–"
    return f"<b>{signed(change.value)}</b><small>[{bound(change.low)}, {bound(change.high)}]</small>"


LOST: tuple[tuple[Outcome, str, str], ...] = (
    ("lost_wrong", "✗", "wrong"), ("lost_prohibited", "⚠", "prohibited"), ("lost_unread", "?", "unparsed"),
    ("lost_cut", "…", "truncated"),
)  # fmt: skip
"""The kinds of a lost answer: their list, sign and word."""


def _count(change: ScoreChange | None, model: str, outcome: Outcome) -> str:
    if change is None:
        return "<td>–</td>"
    number = behind(str(getattr(change, outcome)), model, outcome)
    if outcome != "lost" or not change.lost_kinds:
        return f"<td>{number}</td>"
    parts = " · ".join(
        behind(f"{sign}{hidden(name)} {change.lost_kinds[kind]}", model, kind)
        for kind, sign, name in LOST
        if change.lost_kinds.get(kind)
    )
    return f"<td>{number}<small>{parts}</small></td>"


def behind(number: str, model: str, outcome: Outcome, **narrower: str) -> str:
    """Return a number as a button that opens the questions behind it."""
    extra = "".join(f' data-{name}="{safe(value)}"' for name, value in narrower.items())
    return (
        f'<button type="button" aria-describedby="behind" data-model="{safe(model)}" data-outcome="{outcome}"{extra}>'
        f"{number}</button>"
    )


def _slice(results: RecordedResults, narrow: Filter, measure: Measure, field: str, name: str) -> str:
    """Return the change by the values of a field; an empty text if there is only one."""
    mask = narrow.mask(results)
    values = [value for value in options(results, field) if np.any(mask & (labels(results, field) == value))]
    if len(values) < 2:
        return ""
    body = ""
    for value in values:
        inside = mask & (labels(results, field) == value)
        cells = "".join(_heat(line, {name: value}) for line in score_lines(results, inside, measure))
        shown = category_html(value) if field == "category" else safe(value)
        body += f'<tr><th scope="row">{shown}<small>n = {int(inside.sum()):,}</small></th>{cells}</tr>'
    heads = "".join(f'<th scope="col">{safe(model)}</th>' for model in results.models)
    table = (
        '<table class="figures heat"><thead><tr><th scope="col">'
        f"{both(name)}</th>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )
    title = f"by_{name}"
    return f'<section class="card slice"><h2>{both(title)}</h2>{_scroll(title, table)}</section>'


def _heat(line: ScoreRow, narrower: dict[str, str]) -> str:
    if line.change is None:
        return "<td>–</td>"
    nearer = {"worse": line.change.high, "better": line.change.low, "unclear": 0.0}[line.change.sense]
    strength = max(-1.0, min(1.0, nearer / 0.15 + 0.15 * ((nearer > 0) - (nearer < 0))))
    return f'<td style="--v:{strength:.2f}">{_change(line.change, line.model, "", **narrower)}{_pairs(line)}</td>'


def _scroll(title: str, table: str) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="label-{title}">'
        f'<span class="sr" id="label-{title}">{both(title)}</span>{table}</div>'
    )


def score_lines(results: RecordedResults, mask: Mask, measure: Measure) -> list[ScoreRow]:
    """Return a line for every model on the questions of the mask.

    Points of whole years are the mean of the years' points / total, as in every report; points of parts of years, and
    the share of right answers, are taken over all years together.
    """
    there = np.flatnonzero(mask)
    exams = sittings(results)
    by_year = measure == "points" and bool(np.all(mask[np.isin(exams, exams[there])]))
    weights = points(results)[there] if measure == "points" else np.ones(len(there))
    exam = _Exam(
        results, there, weights, QuestionSample(clusters(results)[there].tolist(), exams[there].tolist()), by_year
    )
    shown = set(results.shown)
    pairs = [pair for pair in PAIRS if set(pair) <= shown]
    return [
        ScoreRow(
            model,
            "",
            {prompt: exam.share(model, prompt) for prompt in results.shown},
            {pair: exam.change(model, pair) for pair in pairs},
            model in results.trials,
        )
        for model in results.models
    ]


@dataclass(frozen=True)
class _Exam:
    """The questions of a mask, their weights, and the estimates of all models over them."""

    results: RecordedResults
    places: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    sample: QuestionSample
    by_year: bool

    def share(self, model: str, prompt: PromptStyle) -> Share | None:
        """Return a model's score under one prompt; None if no question with points was asked."""
        asked, right = self._asked(model, prompt), self._right(model, prompt)
        score = self._estimate(Ratio(self.weights * right, self.weights * asked))
        unread = int(self.results.unanswered[model, prompt][self.places].sum())
        return Share.of(score, int(right.sum()), int(asked.sum()), unread)

    def change(self, model: str, pair: Pair) -> ScoreChange | None:
        """Return the effect of the second prompt on a model, over the questions asked both ways."""
        both = self._asked(model, pair[0]) & self._asked(model, pair[1])
        plain, explained = (self._right(model, prompt) & both for prompt in pair)
        earlier, later = (Ratio(self.weights * right, self.weights * both) for right in (plain, explained))
        counts = {name: int(turned.sum()) for name, turned in _transitions(plain[both], explained[both]).items()}
        unread, unread_later = (self.results.unanswered[model, prompt][self.places] for prompt in pair)
        read = both & ~unread & ~unread_later
        earlier_read, later_read = (
            Ratio(self.weights * (right & read), self.weights * read) for right in (plain, explained)
        )
        return ScoreChange.of(
            self._estimate(later, minus=earlier),
            **counts,
            lost_unread=int((plain & unread_later).sum()),
            lost_cut=int((plain & self.results.cut[model, pair[1]][self.places]).sum()),
            lost_prohibited=int((plain & both & ~explained & self.results.harmful[model, pair[1]][self.places]).sum()),
            readable=int(read.sum()),
            delta_readable=self._estimate(later_read, minus=earlier_read).value,
        )

    def _estimate(self, ratio: Ratio, minus: Ratio | None = None) -> Estimate:
        return self.sample.score(ratio, minus=minus) if self.by_year else self.sample.share(ratio, minus=minus)

    def _asked(self, model: str, prompt: PromptStyle) -> Mask:
        return self.results.there[model, prompt][self.places]

    def _right(self, model: str, prompt: PromptStyle) -> Mask:
        return self.results.right[model, prompt][self.places] & self._asked(model, prompt)


def _transitions(plain: Mask, explained: Mask) -> dict[str, Mask]:
    return {
        "lost": plain & ~explained,
        "gained": ~plain & explained,
        "kept": plain & explained,
        "never": ~plain & ~explained,
    }
