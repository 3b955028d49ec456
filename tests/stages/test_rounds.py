"""The `rounds` stage from folders to folder: which round stands, what is written of each, and how it goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medllm.errors import DataError
from medllm.exam.record import Record, write_records
from medllm.launch.local import maker_of
from medllm.recipe.rounds import RoundEvaluate, RoundPreferences, RoundRpo, Rounds
from medllm.stages import rounds
from medllm.stages.rounds import judge
from tests import tiny
from tests.refusals import refused

RIGHT = {1: (30, 20), 2: (30, 30), 3: (32, 31), 4: (32, 20)}
"""Questions of 40 that the model of each round answers rightly, plain and explained."""


def settings(**changed) -> Rounds:
    sampling = {"data": [{"source": "./exam", "exam": "own"}], "cutoff": "2017-12-31", "shots": 0, "samples": 8}
    sampling |= {"max_new_tokens": 30, "dtype": "float32"}
    trained = {**dict(tiny.RPO), "model": "rounds", "max_steps": 2, "max_length": 512}
    common = {
        **{"model": "rpo", "exam": "mock", "level": 0.05},
        "preferences": RoundPreferences.model_validate(sampling),
        "rpo": RoundRpo.model_construct(**trained),
        "evaluate": RoundEvaluate(benchmarks=("mock",), shots=0, dtype="float32"),
    }
    return Rounds.model_construct(**{**dict(Rounds(exam="mock")), **common, **changed})


def answers(number: int, right: dict[int, tuple[int, int]] = RIGHT) -> list[Record]:
    """Forty answers under each prompt by the model of a round, the first ones right."""
    known = {"benchmark": "mock", "model": f"round-{number}", "status": "answered", "points_total": 1.0}
    return [
        Record(
            question_id=f"q{n}",
            prompt=prompt,
            correct=n < count,
            points=float(n < count),
            answer="a",
            gold="a",
            **known,
        )
        for prompt, count in zip(("plain", "explain"), right[number], strict=True)
        for n in range(40)
    ]


class Stages:
    """The real sampling and training, and answers to the development exam that are as a test needs them."""

    def __init__(self, right: dict[int, tuple[int, int]] = RIGHT, stop_at: str = "") -> None:
        self.right, self.stop_at = right, stop_at
        self.made: list[str] = []
        self.settings: dict[str, object] = {}

    def __call__(self, stage: str):
        def work(given, sources: dict[str, Path], out: Path) -> None:
            name = f"{out.parent.name} {stage}"
            if name == self.stop_at:
                raise KeyboardInterrupt
            self.settings[name] = given
            if (out / "facts.json").is_file():
                return
            self.made.append(name)
            if stage != "evaluate":
                maker_of(stage)(given, sources, out)
                return
            (model,) = given.models
            write_records(answers(int(model.split("-")[1]), self.right), out / "records" / f"{model}.parquet")
            (out / "facts.json").write_text("{}")

        return work


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    base = tiny.make_base(folder / "base")
    first = tiny.make_adapter(folder / "rpo", base)
    facts = {"stage": "rpo", "round": 1, "base": base.name, "fingerprint": "its own"}
    (first / "facts.json").write_text(json.dumps(facts))
    return {
        "base": base,
        "rpo": first,
        "./exam": tiny.make_exam(folder / "exam", 20),
        "mock": tiny.make_exam(folder / "mock", 12, first="2018-01-10", seed=5),
    }


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """Rounds of which the second is kept and the third shows no gain, with what ran."""
    out = tmp_path_factory.mktemp("whole") / "making"
    stages = Stages()
    rounds.make(settings(), sources, out, stages)
    return out, stages


def facts_of(out: Path) -> dict:
    return json.loads((out / "facts.json").read_text("utf-8"))


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_model_of_the_last_round_that_gained_is_the_output(whole, sources):
    out, stages = whole
    facts = facts_of(out)
    assert (facts["stage"], facts["round"], facts["first_round"], facts["stop"]) == ("rounds", 2, 1, "no_gain")
    assert [(row["round"], row["outcome"]) for row in facts["rounds"]] == [(1, "start"), (2, "kept"), (3, "no_gain")]
    assert weights(out) != weights(sources["rpo"])
    assert stages.made == [
        "round-1 evaluate",
        *("round-2 preferences", "round-2 rpo", "round-2 evaluate"),
        *("round-3 preferences", "round-3 rpo", "round-3 evaluate"),
    ]
    log = (out / "training" / "round-2" / "log.jsonl").read_text("utf-8")
    assert log and facts["fingerprint"], "the facts and curves of the training that made it"


def test_each_round_samples_from_the_model_before_it_with_a_seed_of_its_own(whole):
    _, stages = whole
    sampled = [stages.settings[f"round-{number} preferences"] for number in (2, 3)]
    trained = [stages.settings[f"round-{number} rpo"] for number in (2, 3)]
    assert [(given.model, given.seed) for given in sampled] == [("rpo", 1), ("round-2", 2)]
    assert [(given.model, given.seed, given.reference) for given in trained] == [("rpo", 1, None), ("round-2", 2, None)]


def test_the_tables_of_each_round_are_there_and_those_of_the_round_kept_back_apart(whole):
    out, _ = whole
    tables = {path.relative_to(out).as_posix() for path in out.rglob("*.parquet")}
    assert tables == {
        *("rounds.parquet", "records/round-1.parquet"),
        *(f"{name}/round-2.parquet" for name in ("pairs", "samples", "audit", "records")),
        *(f"kept_back/{name}/round-3.parquet" for name in ("pairs", "samples", "audit", "records")),
    }
    pairs = pq.read_table(out / "pairs" / "round-2.parquet").to_pylist()
    assert {pair["round"] for pair in pairs} == {2} and {pair["model"] for pair in pairs} == {"rpo"}
    rows = pq.read_table(out / "rounds.parquet").to_pylist()
    assert [row["pairs"] for row in rows][:2] == [None, len(pairs)]
    second = rows[1]
    assert second["unreviewed"] == 0 and facts_of(out)["audit"] == {"unreviewed": 0}
    assert (second["explain"], second["explain_difference"], second["explain_only_new"]) == (0.75, 0.25, 10)
    assert second["explain_p"] == pytest.approx(2 * 0.5**10) and second["plain_p"] == 1.0
    assert second["cost"] == 0.0 and rows[0]["cost"] == -0.25
    assert rows[0]["explain_p"] is None and rows[0]["asked"] == 40


def test_the_card_has_its_rows_in_points(whole):
    facts = facts_of(whole[0])
    kept = facts["table"][1]
    assert kept["outcome"] == "kept" and kept["cells"]["explain"].startswith("75.0 (")
    assert kept["cells"]["explain against the former"].startswith("+25.0 (")
    assert set(kept["cells"]) == set(facts["columns"])


@pytest.mark.parametrize("stop_at", ["round-1 evaluate", "round-2 rpo", "round-3 preferences", "round-3 evaluate"])
def test_an_interrupted_run_makes_nothing_twice_and_ends_the_same(whole, sources, tmp_path, stop_at):
    out = tmp_path / "making"
    broken = Stages(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        rounds.make(settings(), sources, out, broken)
    assert not out.exists()
    rest = Stages()
    rounds.make(settings(), sources, out, rest)
    assert sorted(broken.made + rest.made) == sorted(whole[1].made)
    assert weights(out) == weights(whole[0])
    assert facts_of(out)["rounds"] == facts_of(whole[0])["rounds"]
    rounds.make(settings(), sources, out, Stages(stop_at="round-1 evaluate"))


def test_no_round_leaves_the_model_as_it_is(sources, tmp_path):
    rounds.make(settings(max_rounds=0), sources, tmp_path / "out", Stages())
    facts = facts_of(tmp_path / "out")
    assert (facts["round"], facts["stop"], len(facts["rounds"])) == (1, "max_rounds", 1)
    assert weights(tmp_path / "out") == weights(sources["rpo"])
    assert pq.read_schema(tmp_path / "out" / "rounds.parquet").field("explain_p").type == "double"


def test_a_round_that_makes_it_worse_is_kept_back(sources, tmp_path, capsys):
    worse = {1: (30, 20), 2: (15, 30)}
    rounds.make(settings(), sources, tmp_path / "out", Stages(worse))
    facts = facts_of(tmp_path / "out")
    assert (facts["round"], facts["stop"]) == (1, "worse")
    assert weights(tmp_path / "out") == weights(sources["rpo"])
    assert "round 2 is kept back" in capsys.readouterr().err
    assert (tmp_path / "out" / "kept_back" / "pairs" / "round-2.parquet").is_file()


def test_the_reference_may_stay_that_of_the_first_model(sources, tmp_path):
    stages = Stages({**RIGHT, 3: (32, 40)})
    rounds.make(settings(reference="first", max_rounds=2), sources, tmp_path / "out", stages)
    assert [stages.settings[f"round-{number} rpo"].reference for number in (2, 3)] == [None, "rpo"]
    assert facts_of(tmp_path / "out")["stop"] == "max_rounds" and facts_of(tmp_path / "out")["round"] == 3


def test_samples_without_a_pair_end_later_rounds_and_refuse_the_first(sources, tmp_path):
    class Dry(Stages):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def __call__(self, stage: str):
            def work(given, sources, out):
                if stage == "preferences" and out.parent.name == f"round-{self.number}":
                    raise DataError("preferences.no-pair", "no pair")
                Stages.__call__(self, stage)(given, sources, out)

            return work

    rounds.make(settings(), sources, tmp_path / "later", Dry(3))
    assert facts_of(tmp_path / "later")["stop"] == "no_pairs" and facts_of(tmp_path / "later")["round"] == 2
    with refused("preferences.no-pair"):
        rounds.make(settings(), sources, tmp_path / "first", Dry(2))


def test_a_past_question_that_is_in_the_development_exam_is_refused(sources, tmp_path):
    copied = tmp_path / "mock"
    copied.mkdir()
    lines = (sources["mock"] / "exam.jsonl").read_text("utf-8").splitlines()
    own = json.loads((sources["./exam"] / "exam.jsonl").read_text("utf-8").splitlines()[3])
    wide = {**own, "question_id": "other", "text": f"　{own['text']} "}
    (copied / "exam.jsonl").write_text("\n".join([*lines, json.dumps(wide, ensure_ascii=False)]) + "\n", "utf-8")
    with refused("preferences.development-exam-trained", "rounds.preferences.data[0]", "Q3", "`mock`"):
        rounds.make(settings(), {**sources, "mock": copied}, tmp_path / "out", Stages())


def test_a_round_is_kept_where_it_gains_and_loses_nowhere():
    former = answers(1)
    assert judge(former, answers(2), "explain", 0.05).outcome == "kept"
    assert judge(former, answers(4), "explain", 0.05).outcome == "no_gain"
    assert judge(answers(2), answers(3), "explain", 0.05).outcome == "no_gain", "one question more may be chance"
    assert judge(answers(2), answers(3), "explain", 1.0).outcome == "kept", "and counts at this level"
    lost_plain = [replace(one, model="round-2") for one in answers(1, {1: (15, 40)})]
    assert judge(former, lost_plain, "explain", 0.05).outcome == "worse"
    assert judge(former, lost_plain, "explain", 0.05).comparisons["plain"].only_first == 15
