"""The pass rule: all three parts, at the announced line, of a year that was answered whole."""

import pytest

from medllm.exam.grading import LINES, verdicts
from tests.exam.making import record


def sat(year, required, general, prohibited=0):
    """Records that earn so many points of the year's announced totals."""
    line = LINES[year]
    made = []
    for name, points, total in (("r", required, line.required_total), ("g", general, line.general_total)):
        for number in range(total):
            made.append(
                record(f"{name}{number}", year=year, required=name == "r", correct=number < points, points_total=1.0)
            )
    return [
        one
        if number >= prohibited
        else record(one.question_id, year=year, required=True, correct=one.correct, prohibited="e")
        for number, one in enumerate(made)
    ]


@pytest.mark.parametrize("year", LINES)
def test_each_line_passes_and_one_point_less_fails(year):
    line = LINES[year]
    assert verdicts(sat(year, line.required, line.general))[0].passed
    assert not verdicts(sat(year, line.required - 1, line.general))[0].passed
    assert not verdicts(sat(year, line.required, line.general - 1))[0].passed


def test_the_required_line_is_eighty_percent():
    assert all(line.required - 1 < 0.8 * line.required_total <= line.required for line in LINES.values())


def test_a_fourth_prohibited_choice_fails():
    assert verdicts(sat(2018, 200, 299, prohibited=3))[0].passed
    assert not verdicts(sat(2018, 200, 299, prohibited=4))[0].passed


def test_a_part_of_an_exam_gets_no_verdict():
    assert verdicts(sat(2018, 200, 299)[1:]) == []
    assert verdicts([record(year=2026)]) == []
    assert set(LINES) == set(range(2018, 2027))


def test_each_year_has_its_own_number_of_prohibited_choices_or_none_that_is_known():
    assert {year: line.allowed for year, line in LINES.items() if line.allowed != 3} == {
        2023: 2,
        2025: None,
        2026: None,
    }
    assert verdicts(sat(2023, 200, 295, prohibited=2))[0].passed
    assert not verdicts(sat(2023, 200, 295, prohibited=3))[0].passed
    assert verdicts(sat(2026, 200, 300, prohibited=9))[0].passed, "a limit that is not known is not applied"


def test_lines_that_are_not_the_ministrys_are_marked():
    assert {year for year, line in LINES.items() if line.source == "scorer"} == {2023, 2024, 2025, 2026}
    assert str(verdicts(sat(2026, 160, 224))[0]) == (
        "2026: pass  required 160/200 (line 160), general 224/300 (line 224), prohibited choices 0 (limit unknown);"
        " lines from one public scorer, not from the ministry"
    )


def test_the_verdict_says_every_number_it_rests_on():
    assert str(verdicts(sat(2018, 161, 221))[0]) == (
        "2018: pass  required 161/200 (line 160), general 221/299 (line 208), prohibited choices 0 (at most 3)"
    )
