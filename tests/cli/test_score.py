"""`medllm score` and `medllm stability` at the command line: results on stdout, everything else on stderr."""

import json

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from medllm.cli import main
from medllm.cli.main import app
from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.record import write_records
from medllm.localhub import serve
from medllm.page.results import read_questions
from tests.exam.making import record
from tests.refusals import assert_refused, refused

EXAM = [
    {"question_id": "1", "text": "胆汁を作るのはどれか。", "choices": ["胃", "肝臓"], "answer": "b", "year": 2020},
    {"question_id": "2", "text": "腹部にあるのはどれか。", "choices": ["胃", "肺"], "answer": ["a"], "points": 3,
     "year": 2020},
    {"question_id": "3", "text": "2たす2を求めよ。", "choices": [], "answer": 4, "year": 2021},
]  # fmt: skip


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "exam"
    folder.mkdir()
    (folder / "exam.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in EXAM), encoding="utf-8")
    return folder


def predictions(tmp_path, answers):
    rows = [{"problem_id": name, "prediction": text} for name, text in answers.items()]
    file = tmp_path / "predictions.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_exam_of_one_s_own_is_scored_as_json_with_the_documented_keys(own, tmp_path):
    file = predictions(tmp_path, {"1": "答え:b", "2": "b", "3": "わかりません"})
    result = run("score", "my-exam", file, "--data", own, "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert {"benchmark", "rules", "years", "score", "pooled", "accuracy", "interval"} <= set(printed)
    assert (printed["benchmark"], printed["rules"]) == ("my-exam", "normalised")
    assert printed["pooled"] == pytest.approx(1 / 5)
    assert printed["score"] == pytest.approx((1 / 4 + 0 / 1) / 2)
    assert printed["accuracy"] == pytest.approx(1 / 3)
    year = printed["years"]["2020"]
    assert {key: year[key] for key in ("points", "total", "correct", "count", "unparsed")} == {
        "points": 1, "total": 4, "correct": 1, "count": 2, "unparsed": 0,
    }  # fmt: skip
    assert printed["years"]["2021"]["unparsed"] == 1


def test_a_part_of_a_year_is_scored_on_the_questions_asked_and_the_table_and_json_show_it(own, tmp_path):
    file = predictions(tmp_path, {"1": "b"})
    table = run("score", "my-exam", file, "--data", own).stdout
    assert "predictions: 1 of 1 points of the questions asked; 1 questions of the year have no prediction" in table
    assert "predictions (trial)" in table
    printed = json.loads(run("score", "my-exam", file, "--data", own, "--json").stdout)
    assert (printed["scope"], printed["trial"], printed["score"]) == ("asked", True, 1.0)
    of_the_year = run("score", "my-exam", file, "--data", own, "--scope", "year").stdout
    assert "only 1 of 2 questions of 2020 have a prediction" in of_the_year
    assert "count as unanswered, with zero points" in of_the_year
    assert "1 of 4" in of_the_year


def test_the_table_and_json_have_the_same_paired_difference_and_details_only_on_request(own, tmp_path):
    files = []
    for name, answers in {"one": "b a 4", "two": "b b 5"}.items():
        (tmp_path / name).mkdir()
        files.append(predictions(tmp_path / name, dict(zip("123", answers.split(), strict=True))))
    table = run("score", "my-exam", *files, "--data", own).stdout
    first, second, third = (" ".join(line.split()) for line in table.splitlines()[:3])
    assert first == "model exam prompt score [95 % interval] points minus one [95 % interval] questions p Holm"
    assert second.startswith("one my-exam – 1.000 [")
    assert " 5 of 5 " in second
    assert third.startswith("two my-exam – 0.125 [")
    assert third.endswith("3 0.5000 0.5000")
    assert "text only" not in table
    difference = json.loads(run("score", "my-exam", *files, "--data", own, "--json").stdout)[1]["difference"]
    assert f"{difference['value']:+.3f} [{difference['interval'][0]:+.3f}, {difference['interval'][1]:+.3f}]" in third
    assert (difference["against"], difference["questions"], difference["only_reference"]) == ("one", 3, 2)
    assert "  2021 " in run("score", "my-exam", *files, "--data", own, "--by", "year").stdout
    with refused("command.unknown-value", "--by month", "year"):
        app(["score", "my-exam", files[0], "--data", str(own), "--by", "month"], standalone_mode=False)


def test_two_files_of_two_prompts_are_enough_for_a_paired_report(own, tmp_path):
    plain = predictions(tmp_path, {"1": "b", "2": "a", "3": "4"})
    explained = tmp_path / "explained.csv"
    explained.write_text("番号,回答\n1,解説。答え：b\n2,b\n3,5\n", encoding="cp932")
    out = tmp_path / "records.parquet"
    files = (f"m:plain={plain}", f"m:explain={explained}")
    assert run("score", "my-exam", *files, "--data", own, "--records", out).exit_code == 0
    by_records = json.loads(run("stability", out, "--json").stdout)["models"]
    change = by_records[0]["change"]
    assert (change["questions"], change["lost"], change["gained"]) == (3, 2, 0)
    folder = tmp_path / "results"
    assert run("score", "my-exam", *files, "--data", own, "--records", folder).exit_code == 0
    assert json.loads(run("stability", folder, "--json").stdout)["models"] == by_records
    assert [one.question_id for one in read_questions(folder / "questions")] == ["1", "2", "3"]
    at_once = run("stability", *files, "--exam", "my-exam", "--data", own, "--json")
    assert json.loads(at_once.stdout)["models"] == by_records


def test_official_rules_are_chosen_by_name_and_no_other_is_known(own, tmp_path):
    file = predictions(tmp_path, {"1": "B", "2": "a", "3": "4"})
    official, normalised = (
        json.loads(run("score", "my-exam", file, "--data", own, "--json", "--rules", rules).stdout)
        for rules in ("official", "normalised")
    )
    assert (official["all"]["points"], normalised["all"]["points"]) == (4, 5)
    with refused("command.unknown-value", "--rules strict", "official or normalised"):
        app(["score", "my-exam", file, "--data", str(own), "--rules", "strict"], standalone_mode=False)


def test_the_list_of_exams_says_source_license_and_use():
    result = run("score", "--list")
    assert all(name in result.stdout for name in CATALOGUE)
    assert "test only: never learn from it" in result.stdout
    printed = json.loads(run("score", "--list", "--json").stdout)
    assert [row["name"] for row in printed] == list(CATALOGUE)
    assert all(row["license"] and row["citation"] and row["source"] for row in printed)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_exam_that_is_not_there_says_where_it_comes_from(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["medllm", "score", name, "x.jsonl", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    source = CATALOGUE[name].source.split(":")[1]
    assert_refused(printed.err, "exam.not-in-folder", tmp_path, name, CATALOGUE[name].license, source)


def test_a_hub_dataset_needs_its_revision():
    with refused("command.no-revision", "--data org/exam", "org/exam@COMMIT"):
        app(["score", "my-exam", "x", "--data", "org/exam"], standalone_mode=False)


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.parquet"
    write_records(
        [
            record(f"q{n}", model=model, prompt=prompt, correct=not (prompt == "explain" and n < lost))
            for model, lost in (("base", 4), ("final", 0))
            for prompt in ("plain", "explain")
            for n in range(10)
        ],
        path,
    )
    return path


def test_stability_reports_as_text_and_as_json(records):
    text = run("stability", records)
    assert text.exit_code == 0
    assert "explaining changes the score by -0.400" in text.stdout
    assert "lost 4, gained 0, p = 0.1250" in text.stdout
    printed = json.loads(run("stability", records, "--json").stdout)
    base = printed["models"][0]
    assert base["change"]["delta"]["value"] == pytest.approx(-0.4)
    assert base["change"]["transitions"]["right_wrong"] == 4
    assert base["conditions"]["plain"]["score"]["value"] == 1.0
    assert [one["p_holm"] for one in printed["comparisons"]] == [1.0, 0.125]


def test_a_margin_shows_whether_the_interval_excludes_the_loss(records):
    text = run("stability", records, "--margin", "35").stdout
    assert text.count("the loss is smaller than 35 points: not shown") == 1, "base loses 40"
    models = json.loads(run("stability", records, "--margin", "35", "--json").stdout)["models"]
    for model in models:
        low, high = (model["change"]["delta"]["interval"][end] for end in ("low", "high"))
        wanted = {"margin": 0.35, "not_worse": low > -0.35, "equivalent": low > -0.35 and high < 0.35}
        assert model["change"]["claims"] == wanted
    assert [model["change"]["claims"]["not_worse"] for model in models] == [False, True]
    with refused("command.unknown-value", "--margin 0"):
        app(["stability", str(records), "--margin", "0"], standalone_mode=False)


def test_stability_draws_every_file_asked_for(records, tmp_path):
    figures = [tmp_path / "figure.svg", tmp_path / "figure.png"]
    result = run("stability", records, "--plot", figures[0], "--plot", figures[1])
    assert result.exit_code == 0
    assert all(figure.stat().st_size > 5_000 for figure in figures)
    assert "medllm: drew" in result.stderr
    assert "medllm: drew" not in result.stdout


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_report(records, monkeypatch, capsys):
    monkeypatch.setattr("medllm.exam.stability.plot.japanese_font", lambda: None)
    monkeypatch.setattr("sys.argv", ["medllm", "stability", str(records), "--plot", "x.svg", "--language", "ja"])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr()
    assert stopped.value.code == 1
    assert "explaining changes the score by -0.400" in shown.out
    assert shown.err.endswith("[exam.no-japanese-font]\n")


def test_the_same_model_twice_is_refused_in_one_line(records, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(records.read_bytes())
    monkeypatch.setattr("sys.argv", ["medllm", "stability", str(records), str(copy)])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().err
    assert_refused(printed, "exam.answered-twice", "question q0 of invented", "by base")
    assert printed.count("\n") == 1


def test_an_exam_on_the_hub_is_scored_at_its_pinned_revision(own, tmp_path, monkeypatch):
    with serve(tmp_path / "hub", user="org") as served:
        api = HfApi(endpoint=served.url, token=served.token)
        api.create_repo("org/exam", repo_type="dataset")
        commit = api.upload_folder(repo_id="org/exam", repo_type="dataset", folder_path=own).oid
    monkeypatch.setattr("medllm.hub.client.cache_of", lambda name: tmp_path / "cache")
    file = predictions(tmp_path, {"1": "b", "2": "a", "3": "4"})
    result = run("score", "my-exam", file, "--data", f"org/exam@{commit}", "--hub", tmp_path / "hub", "--json")
    assert json.loads(result.stdout)["pooled"] == 1.0


def two_models(folder, lost, questions=40):
    """Records of an old model, right on every question, and of a new one that loses some answers."""
    for model in ("old", "new"):
        rows = [record(f"q{n}", model=model, choices=5, correct=model == "old" or n >= lost) for n in range(questions)]
        write_records(rows, folder / f"{model}.parquet")
    return folder / "old.parquet", folder / "new.parquet"


def refusal(result):
    return result.exception.code


def test_two_models_are_compared_from_their_records_with_what_was_lost_and_by_chance(tmp_path):
    old, new = two_models(tmp_path, lost=4)
    result = run("compare", old, new, "--margin", 2)
    assert result.exit_code == 0
    assert (
        "new minus old on invented: -0.100" in result.stdout and "only old right 4, only new right 0" in result.stdout
    )
    (row,) = json.loads(run("compare", old, new, "--margin", 2, "--json").stdout)
    assert (row["first"], row["second"], row["only_first"], row["by_chance"]) == ("old", "new", 4, 0.0)
    assert row["claims"] == {"margin": 0.02, "not_worse": False, "equivalent": False}
    assert "old minus new" in run("compare", new, old).stdout, "the second minus the first, as typed"


def test_a_script_stops_where_a_loss_is_not_excluded(tmp_path):
    old, new = two_models(tmp_path, lost=4)
    assert refusal(run("compare", old, new, "--margin", 2, "--strict")) == "exam.loss-not-excluded"
    assert run("compare", new, old, "--margin", 2, "--strict").exit_code == 0, "a gain is no loss"
    assert refusal(run("compare", old, new, "--strict")) == "command.no-margin"


def test_one_model_is_compared_with_itself_under_another_name(tmp_path):
    old, _ = two_models(tmp_path, lost=1)
    assert refusal(run("compare", old, old)) == "exam.answered-twice"
    assert refusal(run("compare", old)) == "exam.nothing-to-compare"
    assert "later minus old" in run("compare", old, f"later={old}").stdout
    write_records([record("q", model="a"), record("q", model="b")], tmp_path / "several.parquet")
    assert refusal(run("compare", f"x={tmp_path / 'several.parquet'}")) == "exam.one-name-for-several"
