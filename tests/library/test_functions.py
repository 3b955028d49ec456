"""`import medllm` as programs use it: nothing heavy at the start, and tables with the numbers of the commands."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import medllm
from medllm import library
from medllm.exam.extract.completion import Parsed
from tests.pipeline.test_kept_answers import Server
from tests.pipeline.whole import question
from tests.refusals import refused


@pytest.fixture
def ward(tmp_path, monkeypatch):
    """An exam of four questions, all of which have the key a, and the replies of two models."""
    monkeypatch.chdir(tmp_path)
    Path("ward").mkdir()
    rows = [question(f"w{number}", 2020) | {"answer": "a"} for number in range(4)]
    Path("ward/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name, letters in {"x.plain": "aaab", "x.explain": "aabb", "y.plain": "abbb"}.items():
        lines = [f"w{number},{letter}" for number, letter in enumerate(letters)]
        Path(f"{name}.csv").write_text("\n".join(["id,reply", *lines]) + "\n", "utf-8")
    return tmp_path


def test_the_import_loads_nothing_heavy_and_names_every_function():
    code = (
        "import sys, medllm; names = dir(medllm); heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules))); print(names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[]"
    names = ["audit", "compare", "evaluate", "load_results", "parse", "score", "stability"]
    assert [one for one in sorted(medllm.__all__) if one != "__version__"] == names
    assert all(getattr(medllm, name) is getattr(library, name) for name in names)
    with pytest.raises(AttributeError, match="train"):
        medllm.train  # noqa: B018


def test_scores_are_rows_with_intervals_and_paired_differences(ward):
    scores = medllm.score(["x.plain.csv", "y.plain.csv"], "ward", data="ward")
    table = scores.to_pandas()
    assert list(table.model) == ["x", "y"] and list(table.score) == [0.75, 0.25]
    assert (table.low < table.score).all() and (table.score < table.high).all()
    assert table.minus[1] == -0.5 and table.minus_model[1] == "x" and pd.isna(table.minus[0])
    assert table.p[1] == 0.5, "two questions that only x has right"
    assert str(scores).startswith("model") and scores._repr_html_().startswith("<pre>model")


def test_replies_of_any_tool_become_results_with_a_stability_and_a_comparison(ward):
    results = medllm.load_results(["x.plain.csv", "x.explain.csv", "y.plain.csv"], "ward", data="ward")
    assert len(results) == 12 and str(results) == "12 replies of x, y to ward"
    assert results.to_pandas().groupby(["model", "prompt"]).correct.sum().to_dict() == {
        ("x", "explain"): 2,
        ("x", "plain"): 3,
        ("y", "plain"): 1,
    }
    report = medllm.stability(results, margin=2)
    row = report.to_pandas().iloc[0]
    assert (row.model, row.plain, row.explain, row.delta, row.lost, row.gained) == ("x", 0.75, 0.5, -0.25, 1, 0)
    assert "non-inferiority" in str(report)
    (pair,) = medllm.compare(results).rows()
    assert (pair["first"], pair["second"], pair["difference"], pair["only_first"]) == ("x", "y", -0.5, 2)
    results.save("records.parquet")
    again = medllm.load_results("records.parquet")
    assert again.records == results.records and medllm.stability("records.parquet").rows() == report.rows()


def test_a_mapping_names_the_files(ward):
    files = {"one:plain": "x.plain.csv", "one:explain": "x.explain.csv"}
    assert {(row["model"], row["prompt"]) for row in medllm.load_results(files, "ward", data="ward").rows()} == {
        ("one", "plain"),
        ("one", "explain"),
    }
    with refused("command.no-data", "ward"):
        medllm.score("x.plain.csv", "ward")


def test_a_figure_is_drawn_for_a_notebook_and_for_a_file(ward):
    results = medllm.load_results(["x.plain.csv", "x.explain.csv"], "ward", data="ward")
    figure = medllm.stability(results).figure()
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.save("out.svg")
    assert "<svg" in Path("out.svg").read_text("utf-8")
    with refused("exam.unknown-figure-format", "out.gif"):
        figure.save("out.gif")


def test_texts_are_audited_as_they_are_or_by_their_path(ward):
    leak = question("w1", 2020)
    text = "\n".join([leak["text"], *leak["choices"]])
    found = medllm.audit(["何も含まない文。" * 20, text], "ward", data="ward")
    assert found.leaked and {row["document"] for row in found.rows()} == {"text 2"}
    assert not medllm.audit(["何も含まない文。" * 20], "ward=ward").leaked
    Path("texts").mkdir()
    Path("texts/leak.txt").write_text(text, "utf-8")
    assert medllm.audit("texts", "ward", data={"ward": "ward"}).leaked
    assert medllm.audit("texts", "ward").leaked, "an exam is found by its folder's name"
    with refused("corpus.audit-no-folder", "elsewhere"):
        medllm.audit("texts", "elsewhere")


def test_one_reply_is_read(ward):
    assert medllm.parse("肺塞栓を疑う。答え：ａ").answer == "a"
    assert isinstance(medllm.parse("わかりません"), Parsed)


def test_a_server_is_evaluated_and_its_folder_is_read_again(ward):
    server = Server()
    try:
        model = f"http://127.0.0.1:{server.server_address[1]}/v1#m"
        results = medllm.evaluate(model, on="ward", data="ward", modes=["plain"], limit=3, out="mine")
    finally:
        server.shutdown()
        server.server_close()
    assert server.new() == ["m"] * 3 and results.folder == Path("mine")
    assert medllm.load_results("mine").records == results.records
    assert results.to_pandas().correct.all()
