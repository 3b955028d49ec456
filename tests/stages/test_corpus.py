"""The corpus stage from folders to a folder: what is kept is dated, licensed and clean, and every drop has a reason."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medllm.cards import render
from medllm.corpus.write import CORPUS, TableWriter
from medllm.errors import RecipeError
from medllm.hub import Provenance
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make
from tests.refusals import refused

EXAM = [
    {
        "question_id": f"E{number}",
        "text": f"{age}歳の{who}。{months}か月前からの{sign}を主訴に来院した。身長と体重に変化はない。"
        f"家族に同じ病気の者はなく、喫煙歴もない。{sign}は夕方に強くなるという。この患者でまず確かめるべきことはどれか。",
        "choices": [
            "服薬の内容と飲み始めた時期",
            "居住する地域の気候の変化",
            "職場の同僚の既往歴",
            "幼少期の予防接種の記録",
        ],
        "answer": "a",
        "exam_date": "2020-02-08",
    }
    for number, (age, who, months, sign) in enumerate(
        [(34, "女性", 2, "めまい"), (71, "男性", 6, "手足のしびれ"), (52, "女性", 3, "立ちくらみ")], 1
    )
]
PAST = [
    {
        "question_id": "P1",
        "text": "薬を飲むときに水の代わりに牛乳を用いてはならないのはどれか。",
        "choices": ["テトラサイクリン", "アセトアミノフェン", "葉酸", "食塩"],
        "answer": "a",
        "exam_date": "2015-03-01",
        "explanation": "テトラサイクリンは牛乳のカルシウムと結びついて吸収されにくくなる。",
    },
    {
        "question_id": "P2",
        "text": "新しい薬について正しいのはどれか。",
        "choices": ["甲", "乙", "丙", "丁"],
        "answer": "b",
        "exam_date": "2019-03-01",
    },
]
SENTENCES = [
    "肝臓は栄養を蓄え、血液に混じった毒を分解して体の外に出しやすい形に変える働きを持っている。",
    "腎臓は一日に百八十リットルほどの原尿をこしとり、その九割九分を体に戻して水と塩の釣り合いを保つ。",
    "肺では吸いこんだ空気と血液とが薄い膜をはさんで向かいあい、酸素と二酸化炭素とが入れかわる。",
    "骨は硬いだけの支えではなく、古い部分が溶かされ新しい部分が作られることを絶えず繰り返している。",
]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path.parent


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    leaked = EXAM[1]["text"] + "".join(reversed(EXAM[1]["choices"]))
    texts = [
        {"id": "good", "text": SENTENCES[0] + SENTENCES[1], "date": "平成27年4月", "license": "CC BY 4.0"},
        {"id": "again", "text": SENTENCES[0] + "\n" + SENTENCES[1], "date": "2016", "license": "CC BY 4.0"},
        {"id": "young", "text": SENTENCES[2] * 2, "date": "2021-01-01", "license": "CC BY 4.0"},
        {"id": "undated", "text": SENTENCES[2] * 2, "license": "CC BY 4.0"},
        {"id": "unlicensed", "text": SENTENCES[3] * 2, "date": "2015"},
        {"id": "forbidden", "text": SENTENCES[3] * 2, "date": "2015", "license": "cc-by-nc-nd-4.0"},
        {"id": "odd", "text": SENTENCES[3] * 2, "date": "2017/13/45", "license": "CC0"},
        {"id": "leak", "text": SENTENCES[2] + leaked + SENTENCES[3], "date": "2016", "license": "CC0"},
        {
            "id": "patient",
            "text": SENTENCES[3] + "患者氏名：山田 花子、電話090-1234-5678。",
            "date": "2016",
            "license": "CC0",
        },
        {"id": "short", "text": "短い。", "date": "2016", "license": "CC0"},
    ]
    return {
        "./texts": write(tmp_path / "texts" / "rows.jsonl", texts),
        "./past": write(tmp_path / "past" / "questions.jsonl", PAST),
        "final": write(tmp_path / "final" / "questions.jsonl", EXAM),
    }


def settings(**changed) -> Corpus:
    values = {
        "data": [
            "./texts",
            {"source": "./past", "exam": "own", "license": "CC BY-SA 4.0", "published": date(2016, 6, 1)},
        ],
        "held_out": ["final"],
        "cutoff": date(2017, 12, 31),
        "allowed_licenses": ["cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"],
        "min_japanese_share": 0.3,
    }
    return Corpus.model_validate(values | changed)


def rows(out: Path, table: str) -> list[dict]:
    return [row for path in sorted((out / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_text_is_kept_or_dropped_with_its_reason(sources, tmp_path):
    make(settings(), sources, tmp_path / "out")
    kept = {row["locator"]: row for row in rows(tmp_path / "out", "corpus")}
    assert set(kept) == {"rows.jsonl:1#good", "P1 plain", "P1 explain"}
    assert kept["rows.jsonl:1#good"]["published"] == date(2015, 4, 30)
    assert all(row["license"] and row["published"] <= date(2017, 12, 31) for row in kept.values())
    assert kept["P1 explain"]["exam_date"] == date(2015, 3, 1)
    assert kept["P1 explain"]["text"].endswith("Answer: a")
    dropped = {
        row["locator"].partition("#")[2] or row["locator"]: row["reason"] for row in rows(tmp_path / "out", "dropped")
    }
    assert dropped == {
        "again": "duplicate",
        "young": "published_after_cutoff",
        "undated": "no_published_date",
        "unlicensed": "no_license",
        "forbidden": "license_not_allowed",
        "odd": "bad_published_date",
        "leak": "leak",
        "patient": "personal_data",
        "short": "short",
        "P2 plain": "exam_after_cutoff",
    }


def test_nothing_is_lost_between_the_sources_and_the_two_tables(sources, tmp_path):
    make(settings(), sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["documents"] == 3
    assert facts["dropped"] == 10 == sum(facts["reasons"].values())
    assert facts["characters"] == sum(len(row["text"]) for row in rows(tmp_path / "out", "corpus"))
    assert facts["audit"]["documents"] == 13
    assert facts["refuse_public"] == []


def test_a_dropped_text_does_not_show_the_patient(sources, tmp_path):
    make(settings(), sources, tmp_path / "out")
    (text,) = [row["text"] for row in rows(tmp_path / "out", "dropped") if row["reason"] == "personal_data"]
    assert "［氏名］" in text and "［電話番号］" in text
    everything = "".join(path.read_text("utf-8") for path in (tmp_path / "out").glob("*.*"))
    assert "花子" not in text + everything and "5678" not in text + everything


def test_the_audit_names_document_item_and_verdict(sources, tmp_path):
    make(settings(), sources, tmp_path / "out")
    row = max(rows(tmp_path / "out", "audit"), key=lambda one: one["containment"])
    assert row["containment"] == 1.0
    assert (row["locator"], row["item"], row["verdict"], row["stage"]) == (
        "rows.jsonl:8#leak",
        "final/E2",
        "drop",
        "corpus",
    )
    page = (tmp_path / "out" / "audit.html").read_text("utf-8")
    assert "<mark>71歳の男性" in page


def test_the_same_sources_give_the_same_bytes_on_one_and_on_two_workers(sources, tmp_path):
    make(settings(workers=1), sources, tmp_path / "one")
    make(settings(workers=2), sources, tmp_path / "two")
    made = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    again = {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    assert len(made) >= 6
    assert made == again


def test_the_card_is_filled_from_the_facts(sources, tmp_path):
    make(settings(), sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    recipe = {"name": "toy", "base": "o/base@1", "cutoff": "2017-12-31"}
    provenance = Provenance("corpus", "toy", {}, (), {}, "d" * 64)
    card = render("dataset_cards/corpus.md", facts=facts, provenance=provenance, repo_id="o/toy-corpus", recipe=recipe)
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["license"], header["license_name"]) == ("other", "cc-by-4.0, cc-by-sa-4.0")
    assert [one["config_name"] for one in header["configs"]] == ["corpus", "dropped", "audit"]
    for config in header["configs"]:
        assert list((tmp_path / "out").glob(config["data_files"])), config
    assert "3 documents, " in card
    assert "| `leak` | 1 |" in card
    assert "| `./past` | cc-by-sa-4.0 | 2 |" in card
    assert "`./past`: licence CC BY-SA 4.0 published by 2016-06-01" in card.replace("\\", "")
    assert "Not to be shown" not in card


def test_a_row_without_provenance_cannot_be_written(tmp_path):
    row = dict.fromkeys(CORPUS.names) | {"id": "1", "text": "発熱", "source": "a", "locator": "b", "license": "cc0-1.0"}
    with TableWriter(tmp_path / "a", 0, CORPUS) as table:
        table.add(row | {"published": date(2015, 1, 1)})
    for missing in ("source", "locator", "license", "published"):
        with (
            pytest.raises(pa.ArrowInvalid, match=f"Column '{missing}' .*non-nullable"),
            TableWriter(tmp_path / "b", 0, CORPUS) as table,
        ):
            table.add(row | {"published": date(2015, 1, 1), missing: None})


def test_a_corpus_without_a_cutoff_is_refused(sources, tmp_path):
    with refused("recipe.no-cutoff", "corpus.cutoff", kind=RecipeError):
        make(settings(cutoff=None), sources, tmp_path / "out")


def test_a_corpus_of_which_nothing_is_left_says_why(sources, tmp_path):
    with refused("corpus.nothing-left", "12 license not allowed"):
        make(settings(allowed_licenses=["mit"]), sources, tmp_path / "out")


def test_a_set_known_to_hold_the_exam_is_refused_by_name(sources, tmp_path):
    values = settings(data=["someone/medrect-ja-train@v1"], held_out=["igakuqa"])
    with refused("recipe.known-leak", "someone/medrect-ja-train@v1", "MedRECT-ja", "`leaks_reviewed`"):
        make(values, {"someone/medrect-ja-train@v1": sources["./texts"]}, tmp_path / "out")


def test_patients_stop_the_stage_when_the_recipe_says_so_and_an_answer_lets_it_pass(sources, tmp_path):
    with refused("corpus.personal-data", "1 name, 1 phone"):
        make(settings(personal_data="stop"), sources, tmp_path / "out")
    make(settings(personal_data="keep"), sources, tmp_path / "kept")
    facts = json.loads((tmp_path / "kept" / "facts.json").read_text("utf-8"))
    assert facts["personal_data"]["standing"] == 2
    assert facts["refuse_public"][0].startswith("2 places seem to name a patient")
    reviewed = [one["finding"] for one in facts["personal_data"]["findings"]]
    make(settings(personal_data="stop", pii_reviewed=reviewed), sources, tmp_path / "reviewed")
    assert json.loads((tmp_path / "reviewed" / "facts.json").read_text("utf-8"))["refuse_public"] == []


def test_replay_fills_its_share_of_the_characters_and_the_rest_is_counted_and_not_kept(sources, tmp_path):
    texts = [
        f"市場では{n * 37}個の{'荷' * (n % 9)}が{n}番の台に並び、値が決まるまで{n * n}人が待つ。" * 2 for n in range(40)
    ]
    sources["./general"] = write(tmp_path / "general" / "rows.jsonl", [{"text": text} for text in texts])
    replay = {"source": "./general", "share": 0.5, "license": "cc0", "published": date(2010, 1, 1)}
    make(settings(replay=replay, near_duplicate=None, max_repetition=1.0), sources, tmp_path / "out")
    kept = rows(tmp_path / "out", "corpus")
    drawn = sum(row["characters"] for row in kept if row["kind"] == "replay")
    room = sum(row["characters"] for row in kept) - drawn
    assert room - max(map(len, texts)) < drawn <= room, "half of it, but for what no text is short enough for"
    reasons = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))["reasons"]
    assert reasons["not_drawn"] == 40 - sum(row["kind"] == "replay" for row in kept) > 0
    assert not [row for row in rows(tmp_path / "out", "dropped") if row["kind"] == "replay"]
