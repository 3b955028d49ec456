"""`medllm audit` on anybody's texts: the JSON, the page and the counts of what could not be read."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medllm.cli.exam import exam_folders
from medllm.cli.main import app
from medllm.corpus.decontaminate.audit import AuditRequest, audit, audit_source, write_page
from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.read.sources import TextSource
from tests.refusals import refused

CASE = "五十八歳の女性。二か月前からの動悸と体重の減少を主訴に来院した。甲状腺は全体に腫れ、手指に細かい震えを認める。"
QUESTION = {
    "question_id": "Q1",
    "text": CASE + "この患者で上昇しているのはどれか。",
    "choices": ["遊離サイロキシンの血中濃度", "甲状腺刺激ホルモンの血中濃度", "副甲状腺ホルモンの血中濃度"],
    "answer": "a",
}
ITEM = ExamItem("own/Q1", QUESTION["text"], tuple(QUESTION["choices"]))
OTHER = "水分と塩分は控えめにし、毎朝の体重を手帳に書いて次の受診のときに見せるよう伝えた。"


class Marks(HTMLParser):
    """The marked texts of a page and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.marked: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Note the tag."""
        self.tags.add(tag)
        self._inside = tag == "mark"

    def handle_data(self, data):
        """Note what a mark holds."""
        if self._inside:
            self.marked.append(data)
        self._inside = False


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    folder = tmp_path / "exams" / "own"
    folder.mkdir(parents=True)
    (folder / "questions.jsonl").write_text(json.dumps(QUESTION, ensure_ascii=False), "utf-8")
    return folder.parent


def test_the_command_prints_the_report_as_json_and_writes_the_page(tmp_path, exam):
    texts = tmp_path / "texts.jsonl"
    rows = [{"id": "clean", "text": OTHER * 5}, {"id": "leak", "text": OTHER + QUESTION["text"] + OTHER}]
    texts.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + "{broken\n", "utf-8")
    page = tmp_path / "page.html"
    command = ["audit", str(texts), "--against", "own", "--data", str(exam), "--page", str(page), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["documents"] == [
        {
            "document": "texts.jsonl:2#leak",
            "item": "own/Q1",
            "containment": 1.0,
            "verdict": "drop",
            "part": "question",
            "stage": "corpus",
        }
    ]
    assert report["items"] == [{"item": "own/Q1", "containment": 1.0, "document": "texts.jsonl:2#leak"}]
    assert report["totals"]["documents"] == 2
    assert report["totals"]["documents_to_drop"] == 1
    assert report["totals"]["unread"] == {"broken_json": 1}
    assert Marks(page.read_text("utf-8")).marked == [QUESTION["text"].rstrip("。")]


def test_the_command_says_in_words_what_it_found(tmp_path, exam):
    texts = tmp_path / "notes.txt"
    texts.write_text(OTHER * 3, "utf-8")
    command = ["audit", str(texts), "--against", "own", "--data", str(exam), "--page", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.stdout.splitlines() == [
        "1 documents against 1 items of own",
        "to drop 0, to review 0 documents",
        "leaked 0, to review 0 items",
    ]


@pytest.fixture
def leak(tmp_path: Path) -> Path:
    """A text that holds the question of the exam `own` whole, and one that holds none."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "leak.txt").write_text(OTHER + QUESTION["text"] + OTHER, "utf-8")
    (tmp_path / "texts" / "clean.txt").write_text(OTHER * 3, "utf-8")
    return tmp_path / "texts"


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A second exam, in a folder of another name, whose question is in no text."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    question = {
        **QUESTION,
        "text": "三歳の男児。昨夜からの発熱と右耳の痛みを訴えて来院した。最初に行うべき診察はどれか。",
    }
    (folder / "questions.jsonl").write_text(json.dumps(question, ensure_ascii=False), "utf-8")
    return folder


def run(monkeypatch, tmp_path, *words):
    monkeypatch.chdir(tmp_path)
    return CliRunner().invoke(app, ["audit", *map(str, words)], catch_exceptions=False)


def test_the_command_names_what_leaked(tmp_path, exam, leak, monkeypatch):
    shown = run(monkeypatch, tmp_path, leak, "--against", "own", "--data", exam).stdout.splitlines()
    assert shown[2:] == ["leaked 1, to review 0 items", "drop  leak.txt  own/Q1  1.00 (question)"]
    assert (tmp_path / "audit-own.html").is_file()


def test_the_command_names_at_most_20_matches_and_counts_the_rest(tmp_path, exam, leak, monkeypatch):
    for number in range(25):
        (leak / f"copy{number:02}.txt").write_text(QUESTION["text"], "utf-8")
    shown = run(monkeypatch, tmp_path, leak, "--against", "own", "--data", exam).stdout.splitlines()
    assert len(shown) == 3 + 20 + 1
    assert shown[-1] == "and 6 more; --json lists all"


@pytest.mark.parametrize(("text", "code"), [("leak.txt", 3), ("clean.txt", 0)])
@pytest.mark.parametrize("json_", [True, False])
def test_fail_gives_exit_code_3_when_something_leaked(tmp_path, exam, leak, monkeypatch, text, code, json_):
    words = [leak / text, "--against", "own", "--data", exam, *(["--json"] if json_ else [])]
    assert run(monkeypatch, tmp_path, *words).exit_code == 0
    assert run(monkeypatch, tmp_path, *words, "--fail").exit_code == code


def test_two_exams_in_two_places_have_a_page_each(tmp_path, exam, leak, ward, monkeypatch):
    words = [leak, "--against", f"ward={ward}", "--against", "own", "--data", exam]
    done = run(monkeypatch, tmp_path, *words)
    assert done.stdout.startswith("2 documents against 2 items of ward, own\n")
    own, other = (tmp_path / f"audit-{name}.html" for name in ("own", "ward"))
    assert Marks(own.read_text("utf-8")).marked == [QUESTION["text"].rstrip("。")]
    assert Marks(other.read_text("utf-8")).marked == []
    assert "compared with 1 held-out exam items" in own.read_text("utf-8")
    before = own.read_bytes()
    assert run(monkeypatch, tmp_path, leak, "--against", f"ward={ward}").exit_code == 0
    assert own.read_bytes() == before


def test_a_page_of_ones_own_name_is_one_for_each_exam_too(tmp_path, exam, leak, ward, monkeypatch):
    words = [leak, "--against", f"ward={ward}", "--against", "own", "--data", exam, "--page", "out.html"]
    assert run(monkeypatch, tmp_path, *words).exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["out-own.html", "out-ward.html"]


@pytest.mark.parametrize(
    ("against", "code"),
    [
        (["own"], "corpus.audit-no-folder"),
        (["own=x", "own=y"], "corpus.audit-exam-twice"),
        (["../own=x"], "corpus.audit-exam-name"),
        (["own="], "corpus.audit-exam-name"),
    ],
)
def test_an_exam_without_a_folder_or_with_a_bad_name_is_refused(against, code):
    with refused(code, f"--against {against[-1].partition('=')[0]}"):
        exam_folders(against, None)


def test_the_folder_after_the_name_goes_before_data(tmp_path, exam):
    assert exam_folders([f"own={tmp_path}", "other"], exam) == {"own": tmp_path, "other": exam}
    assert exam_folders(["own"], exam) == {"own": exam / "own"}


def test_an_exam_may_be_written_as_its_folder_which_names_it(tmp_path, monkeypatch):
    (tmp_path / "ward").mkdir()
    monkeypatch.chdir(tmp_path)
    assert exam_folders(["./ward"], None) == {"ward": Path("./ward")}
    assert exam_folders(["ward"], None) == {"ward": Path("ward")}
    assert exam_folders([f"{tmp_path}/ward"], tmp_path) == {"ward": tmp_path / "ward"}
    assert exam_folders(["ward"], tmp_path / "data") == {"ward": tmp_path / "data"}, "with --data a bare name is there"


def test_a_text_that_is_html_is_shown_and_not_run(tmp_path):
    text = f'<script>alert(1)</script><img src=x onerror="alert(2)">{QUESTION["text"]}</pre><b>'
    report = audit([("<i>name</i>", text)], AuditRequest((ITEM,)))
    write_page(report, "<u>title</u>", tmp_path / "page.html")
    page = Marks((tmp_path / "page.html").read_text("utf-8"))
    assert page.tags.isdisjoint({"script", "img", "b", "i", "u"})
    assert page.marked == [QUESTION["text"].rstrip("。")]


def test_verdicts_follow_the_thresholds(tmp_path):
    half = QUESTION["text"][: len(QUESTION["text"]) // 2]
    asked = AuditRequest((ITEM,), "preferences", 0.9, 0.2)
    (found,) = audit([("half", OTHER + half)], asked).findings
    assert (found.verdict, found.stage, found.part) == ("review", "preferences", "question")
    assert 0.2 <= found.containment < 0.9
    assert audit([("half", OTHER + half)], AuditRequest((ITEM,), "preferences", 0.95, 0.9)).findings == []


def test_two_processes_report_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr("medllm.corpus.read.sources.PIECE", 4000)
    rows = [{"id": n, "text": OTHER * (n % 5 + 1) + (QUESTION["text"] if n % 10 == 3 else "")} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    source = TextSource("texts", tmp_path / "rows.jsonl")
    one, two = (audit_source(source, AuditRequest((ITEM,)), workers=workers) for workers in (1, 2))
    assert one.as_dict() == two.as_dict()
    assert len(one.findings) == 6


def test_the_largest_trace_of_an_item_is_the_first_of_those_as_large():
    report = audit([("a", OTHER), ("b", QUESTION["text"]), ("c", QUESTION["text"])], AuditRequest((ITEM,)))
    assert report.as_dict()["items"] == [{"item": "own/Q1", "containment": 1.0, "document": "b"}]
    assert report.totals()["items_leaked"] == 1
