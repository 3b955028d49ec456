"""The sources of `rounds`, opened before any work: the development exam, its worked examples, the past questions."""

import pytest

from tests.preflight.conftest import Ward, question, write_exam

EXAMS = {"naika": {"source": "./naika", "first": "2019-02-09"}, "mock": {"source": "./mock", "first": "2018-03-01"}}
RPO = {"model": "base", "lora": {"r": 4, "lora_alpha": 8}, "rpo_alpha": 10, "max_steps": 2}


@pytest.fixture
def developing(ward: Ward):
    """Find the faults of the recipe with rounds that develop on a mock exam of its own."""
    write_exam(ward.folder / "mock", [question(number, "2018-03-01") for number in range(60, 64)])

    def find(**changed):
        rounds = {"exam": "mock", "evaluate": {"shots": 0}}
        given = {"exams": EXAMS, "corpus__held_out": ["naika", "mock"], "rpo": RPO, "rounds": rounds, **changed}
        return ward.find(**given, thorough=True)

    return find


def test_a_development_exam_of_its_own_has_no_fault(developing):
    assert developing() == []


def test_a_question_of_the_development_exam_that_evaluate_asks_is_refused(developing, ward):
    same = question(2, "2018-03-01", question_id="renamed")
    write_exam(ward.folder / "mock", [question(60, "2018-03-01"), same])
    (fault,) = developing()
    assert (fault.place, fault.code) == ("rounds.exam", "recipe.development-exam-asked")
    assert "1 of 2 questions" in fault.text and "`naika`" in fault.text and "(renamed)" in fault.text


def test_a_past_question_in_the_development_exam_is_refused(developing, ward):
    write_exam(ward.folder / "mock", [question(60, "2018-03-01"), question(12, "2018-03-01", question_id="again")])
    (fault,) = developing()
    assert (fault.place, fault.code) == ("rounds.preferences.data", "preferences.development-exam-trained")
    assert "Q12" in fault.text and "`mock`" in fault.text


def test_a_development_exam_needs_the_worked_examples_that_its_questions_follow(developing):
    (fault,) = developing(rounds={"exam": "mock", "evaluate": {"shots": 2}})
    assert (fault.place, fault.code) == ("rounds.evaluate.shots", "exam.no-exemplars")


def test_too_few_past_questions_of_a_round_are_a_fault_of_its_own(developing):
    rounds = {"exam": "mock", "evaluate": {"shots": 0}, "preferences": {"shots": 10}}
    (fault,) = developing(rounds=rounds)
    assert (fault.place, fault.code) == ("rounds.preferences.data", "preferences.too-few-questions")
