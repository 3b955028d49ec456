"""The figure is drawn as SVG and PNG, in both languages, and says the numbers it is of."""

import pytest

from medllm.exam.stability import plot
from medllm.exam.stability.report import score_table, stability_report
from tests.exam.making import record
from tests.refusals import refused


@pytest.fixture(scope="module")
def drawn():
    records = [
        record(f"q{n}", model=model, prompt=prompt, correct=n % 5 > (prompt == "explain") + (model == "base"))
        for model in ("base", "final")
        for prompt in ("plain", "explain")
        for n in range(40)
    ]
    return stability_report(records)


def test_an_svg_is_the_same_each_time_and_a_png_is_a_png(drawn, tmp_path):
    plot.draw_stability(drawn, tmp_path / "one.svg")
    plot.draw_stability(drawn, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    plot.draw_stability(drawn, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "one.svg", "two.svg"]


def test_the_figure_shows_each_model_s_change_with_its_interval(drawn):
    cells = {row.model: plot._change(row, plot._WORDS["en"]) for row in score_table(drawn)}
    change = drawn.models[0].change
    assert cells["base"][0].startswith(f"{100 * change.delta.value:+.1f} [".replace("-", "−"))
    assert cells["base"][1] == f"{100 * change.retention.value:.1f} %"


def test_a_japanese_figure_is_drawn_where_there_is_a_font_and_refused_where_not(drawn, tmp_path, monkeypatch):
    if plot.japanese_font():
        plot.draw_stability(drawn, tmp_path / "ja.svg", language="ja")
        assert (tmp_path / "ja.svg").stat().st_size > 10_000
    monkeypatch.setattr(plot, "japanese_font", lambda: None)
    with refused("exam.no-japanese-font", "Noto Sans CJK JP"):
        plot.draw_stability(drawn, tmp_path / "ja.png", language="ja")
    plot.draw_stability(drawn, tmp_path / "en.png")


def test_a_font_that_is_newer_than_matplotlib_s_list_of_fonts_is_found(monkeypatch):
    from matplotlib.font_manager import fontManager

    font = plot.japanese_font()
    if font is None:
        pytest.skip("no Japanese font is installed here")
    monkeypatch.setattr(fontManager, "ttflist", [one for one in fontManager.ttflist if "CJK" not in one.fname])
    assert plot._listed_japanese_font() is None
    assert plot.japanese_font() == font


def test_a_model_asked_only_one_way_is_drawn_without_a_change(tmp_path):
    plot.draw_stability(stability_report([record("q")]), tmp_path / "one.svg")
    assert (tmp_path / "one.svg").exists()


def test_another_ending_is_refused(drawn, tmp_path):
    with refused("exam.unknown-figure-format", "figure.gif", ".svg, .png or .pdf"):
        plot.draw_stability(drawn, tmp_path / "figure.gif")
