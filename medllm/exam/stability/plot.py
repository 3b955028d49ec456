"""The figure of a stability report: one dumbbell per model, plain to explained, with whiskers; Japanese or English."""

import math
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medllm.errors import DataError
from medllm.exam.record import PromptStyle
from medllm.exam.stability.report import ScoreRow, Share, StabilityReport, score_table
from medllm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PlotLanguage = Literal["en", "ja"]

_WORDS = {
    "en": {
        "title": "Does the score hold when the model must explain itself?",
        "score": "Score (points earned / points, mean of years)",
        "plain": "answer only",
        "explain": "explanation first",
        "think": "after thinking",
        "note": "Lines above and below the dots: 95 % intervals. Change: in points of 100, with paired 95 % interval.",
        "change": "change",
        "kept": "kept right",
        "lost": "lost",
        "lost_wrong": "other answer",
        "lost_prohibited": "prohibited",
        "lost_unread": "no answer",
        "lost_cut": "cut off",
    },
    "ja": {
        "title": "説明を求めても得点は保たれるか",
        "score": "得点率(得点 / 満点、各年の平均)",
        "plain": "解答のみ",
        "explain": "解説してから解答",
        "think": "思考してから解答",
        "note": "点の上下の横線は95%信頼区間。変化は100点満点での差と、対応のある95%信頼区間。",
        "change": "変化",
        "kept": "正答の維持",
        "lost": "失った正答",
        "lost_wrong": "別の答え",
        "lost_prohibited": "禁忌肢",
        "lost_unread": "答えなし",
        "lost_cut": "打ち切り",
    },
}
_CELLS = (1.02, 1.24)
"""Start of the two columns at the right, in widths of the plot."""
_INK, _MUTED = "#1f2933", "#7b8794"
_COLOURS: dict[PromptStyle, str] = {"plain": "#3b6fb6", "explain": "#d1662c", "think": "#6b4fa0"}
_FORMS: dict[PromptStyle, str] = {"plain": "o", "explain": "o", "think": "D"}
_OFFSETS: dict[int, tuple[float, ...]] = {1: (0.0,), 2: (-0.13, 0.13), 3: (-0.19, 0.0, 0.19)}
"""Places of the whiskers beside a row's line, by the number of prompts."""
_CJK = (
    "Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "IPAGothic", "Source Han Sans JP", "TakaoGothic",
    "Hiragino Sans", "Yu Gothic", "MS Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback",
)  # fmt: skip


def draw_stability(report: StabilityReport, path: Path, *, language: PlotLanguage = "en") -> None:
    """Draw the report to an SVG, PNG or PDF file, through a temporary file that is then moved into place."""
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise DataError(
            "exam.unknown-figure-format", f"{path}: the figure can be .svg, .png or .pdf. Give one of these endings."
        )
    picture = render_stability(report, path.suffix.removeprefix("."), language=language)
    with atomic_write(path) as part:
        part.write_bytes(picture)


def render_stability(report: StabilityReport, kind: str, *, language: PlotLanguage = "en") -> bytes:
    """Return the figure of a report as the bytes of an `svg`, `png` or `pdf` file.

    Raises:
        DataError: No font of this machine has Japanese letters, and `language` is Japanese.
    """
    import matplotlib
    from matplotlib.figure import Figure

    font = japanese_font()
    words = _WORDS[language]
    if language == "ja" and font is None:
        raise DataError(
            "exam.no-japanese-font",
            f"no installed font has Japanese letters. Install one ({', '.join(_CJK[:3])}), or draw in English.",
        )
    shown = [row for row in score_table(report) if any(row.shares.values())]
    settings = {
        "font.family": [font, "DejaVu Sans"] if font else ["DejaVu Sans"],
        "svg.fonttype": "path",
        "svg.hashsalt": "medllm",
        "axes.unicode_minus": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9.5, 2.1 + 0.62 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        _dumbbells(axes, shown, words)
        figure.suptitle(words["title"], x=0.01, ha="left", fontsize=13, color=_INK, fontweight="bold")
        figure.supxlabel(words["note"], x=0.01, ha="left", fontsize=8, color=_MUTED)
        picture = BytesIO()
        figure.savefig(picture, dpi=160, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()


def japanese_font() -> str | None:
    """Return a font with Japanese letters, or None if none is installed.

    matplotlib lists fonts in a cache of its own: what was installed later is looked for on the disk.
    """
    return _listed_japanese_font() or (_list_new_fonts() and _listed_japanese_font()) or None


def _listed_japanese_font() -> str | None:
    from matplotlib.font_manager import fontManager

    present = {font.name for font in fontManager.ttflist}
    return next((name for name in _CJK if name in present), None)


def _list_new_fonts() -> bool:
    """Add the fonts of this machine that matplotlib's cache does not list; return whether there are any."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    listed = {font.fname for font in fontManager.ttflist}
    new = [path for path in findSystemFonts() if path not in listed]
    for path in new:
        with suppress(OSError, RuntimeError):  # a broken font file, or a kind that matplotlib cannot draw
            fontManager.addfont(path)
    return bool(new)


def _dumbbells(axes: "Axes", rows: Sequence[ScoreRow], words: dict[str, str]) -> None:
    """Draw one row per model, the first on top, with its change written at the right."""
    several = len({row.exam for row in rows}) > 1
    for place, row in enumerate(rows):
        shares = {prompt: share for prompt, share in row.shares.items() if share}
        values = [share.value for share in shares.values()]
        axes.plot(
            [min(values), max(values)], [place, place], color="#c3cad2", linewidth=3, zorder=1, solid_capstyle="round"
        )
        for offset, (prompt, share) in zip(_OFFSETS[len(shares)], shares.items(), strict=True):
            _dot(axes, share, place, offset, prompt)
        for at, cell in zip(_CELLS, _change(row, words), strict=True):
            axes.annotate(cell, (at, place), xycoords=("axes fraction", "data"), va="center", fontsize=9.5, color=_INK)
    names = [f"{row.name}\n{row.exam}" if several else row.name for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=10, color=_INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(words["score"], fontsize=9, color=_INK)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for at, heading in zip(_CELLS, (words["change"], words["kept"]), strict=True):
        axes.annotate(heading, (at, 1.04), xycoords="axes fraction", va="bottom", fontsize=9, color=_MUTED)
    _legend(axes, words, [prompt for prompt in _COLOURS if any(prompt in row.shares for row in rows)])


def _dot(axes: "Axes", share: Share, row: int, offset: float, prompt: PromptStyle) -> None:
    """Draw a prompt's score with its whisker; form and colour both mark the prompt, for readers who see no colour."""
    axes.plot([share.low, share.high], [row + offset] * 2, color=_COLOURS[prompt], linewidth=1.4, zorder=2)
    filled = prompt != "plain"
    axes.plot(
        [share.value], [row], marker=_FORMS[prompt], markersize=8 if prompt == "think" else 10, zorder=3,
        color=_COLOURS[prompt], markerfacecolor=_COLOURS[prompt] if filled else "white", markeredgewidth=2,
    )  # fmt: skip


def _change(row: ScoreRow, words: dict[str, str]) -> tuple[str, str]:
    """Return the cells at the right: "+0.4 [−0.9, +1.7]" in points of a hundred, and "97.1 %".

    They have a line for each prompt that is compared with the plain one, with its name where there are two. Lost
    answers are split by kind where some are no other answer.
    """
    shown = [(after, change) for (before, after), change in row.changes.items() if before == "plain" and change]
    changes, kept = [], []
    for after, change in shown:
        name = f"{words[after]}: " if len(shown) > 1 else ""
        ends = f"[{100 * change.low:+z.1f}, {100 * change.high:+z.1f}]"
        changes.append(name + f"{100 * change.value:+z.1f} {ends}".replace("-", "−"))
        kinds = ", ".join(f"{words[kind]} {count}" for kind, count in change.lost_kinds.items())
        lost = f"\n({words['lost']} {change.lost}: {kinds})" if kinds else ""
        kept.append("" if math.isnan(change.retention) else f"{100 * change.retention:.1f} %{lost}")
    return "\n".join(changes), "\n".join(kept)


def _legend(axes: "Axes", words: dict[str, str], prompts: Sequence[PromptStyle]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], marker=_FORMS[prompt], linestyle="", markersize=8, color=_COLOURS[prompt], markeredgewidth=2,
            label=words[prompt], markerfacecolor="white" if prompt == "plain" else _COLOURS[prompt],
        )
        for prompt in prompts
    ]  # fmt: skip
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9)
