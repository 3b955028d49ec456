"""What a run prints of its evaluation: the card's table and the rates that a person should see."""

from medllm.exam.record import Record
from medllm.pipeline.facts import evaluation_summary, suspicious_rates


def record(number: int, model: str = "final", **changed) -> Record:
    values = {
        "question_id": f"q{number}",
        "benchmark": "naika",
        "model": model,
        "prompt": "explain",
        "status": "answered",
        "correct": True,
        "points": 1.0,
        "points_total": 1.0,
        "answer": "a",
        "gold": "a",
        "completion": f"{model} {number}",
    }
    return Record(**{**values, **changed})


def test_a_run_prints_the_table_of_the_card_and_the_folder_of_the_answers(workshop):
    plan, made = workshop.plan(), workshop.run()
    lines = evaluation_summary(plan, made, workshop.hub, workshop.folder / "runs")
    assert lines[0].split() == ["model", "exam", "questions", "plain", "explain", "delta"]
    assert [line.split()[:3] for line in lines[1:4]] == [[name, "world", "40"] for name in ("base", "cpt", "final")]
    assert (workshop.hub.pull(made["evaluate"]) / "records").is_dir()
    assert lines[-1].endswith(str(workshop.hub.pull(made["evaluate"])))
    del made["evaluate"]
    assert evaluation_summary(plan, made, workshop.hub, workshop.folder / "runs") == []


def test_rates_from_a_tenth_on_are_named_with_what_to_do():
    cut = [record(number, status="truncated") for number in range(1)]
    whole = [record(number) for number in range(1, 10)]
    assert list(suspicious_rates([*cut, *whole])) == [
        "! final, explain, naika: 1 of 10 replies were cut off: raise evaluate.max_new_tokens.explain."
    ]
    assert list(suspicious_rates([*cut, *whole, record(10)])) == []


def test_thinking_that_was_cut_off_is_named_with_the_key_to_raise():
    cut = [record(number, prompt="plain", status="thinking") for number in range(10)]
    assert list(suspicious_rates(cut)) == [
        "! final, plain, naika: 10 of 10 replies were cut off inside their thinking: raise "
        "evaluate.max_new_tokens.plain."
    ]


def test_loops_are_named_and_no_larger_budget_is_proposed():
    (line,) = suspicious_rates([record(1, status="loop", finish_reason="repetition"), record(2)])
    assert "1 of 2 replies end in a loop" in line and "raise" not in line


def test_prompts_that_did_not_fit_are_not_counted_as_unread():
    (line,) = suspicious_rates([record(1, status="unparsed", finish_reason="too_long", completion=""), record(2)])
    assert "1 of 2 replies have prompts that do not fit the model" in line


def test_replies_that_the_server_refused_are_not_counted_as_unread():
    (line,) = suspicious_rates([record(1, status="unparsed", finish_reason="refused", completion=""), record(2)])
    assert "1 of 2 replies were declined by the server or the model" in line


def test_a_model_that_answers_word_for_word_as_the_base_is_named():
    base = [record(number, "base") for number in range(3)]
    same = [record(number, completion=f"base {number}") for number in range(3)]
    (line,) = suspicious_rates([*base, *same], "base")
    assert line.startswith("! final, explain, naika: base and final gave the same reply in 3 of 3.")
    assert list(suspicious_rates([*base, *same[:2], record(2)], "base")) == []
