"""The shelves hold what they say, and the web page shelf holds exactly what the audit must find."""

import json

from medllm.miniature.corpora import PLANTED_LEAKS, PLANTED_UNLICENSED, PLANTED_YOUNG, Library
from medllm.miniature.exams import exam_of
from medllm.miniature.world import make_world

WORLD = make_world()
PAST = [exam_of(WORLD, 2010, 40)]


def shelf_text(rows) -> str:
    return "\n".join(str(row["text"]) for row in rows)


def test_the_textbook_tells_of_new_diseases_and_the_forum_does_not():
    library = Library(WORLD, 0, PAST)
    new = WORLD.of_kind("exam", "text")
    textbook, forum = shelf_text(library.textbook(60)), shelf_text(library.forum(60))
    assert all(disease in textbook for disease in new)
    assert not any(disease in forum for disease in new)


def test_what_only_the_textbook_has_is_in_no_answer_book():
    answer_book = shelf_text(Library(WORLD, 0, PAST).answer_book(80))
    assert not any(disease in answer_book for disease in WORLD.of_kind("text"))
    assert any(disease in answer_book for disease in WORLD.of_kind("exam"))


def test_every_row_is_marked_as_invented_and_has_date_and_license():
    library = Library(WORLD, 0, PAST)
    rows = [*library.textbook(5), *library.workbook(5), *library.answer_book(5), *library.forum(5)]
    assert all("架空" in row["notice"] for row in rows)
    assert all(row["license"] == "CC-BY-4.0" and "2006" <= row["published"][:4] <= "2016" for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_the_web_shelf_holds_the_planted_pages_and_nothing_else():
    later = exam_of(WORLD, 2019, 40)
    rows = Library(WORLD, 0, PAST).web([later])
    leaks = [row for row in rows if any(item.text in row["text"] for item in later.items)]
    young = [row for row in rows if row["published"] > "2018"]
    unlicensed = [row for row in rows if row["license"] is None]
    assert (len(leaks), len(young), len(unlicensed)) == (PLANTED_LEAKS, PLANTED_YOUNG, PLANTED_UNLICENSED)
    assert len(rows) == PLANTED_LEAKS + PLANTED_YOUNG + PLANTED_UNLICENSED


def test_another_seed_writes_other_texts_of_the_same_medicine():
    one, other = (shelf_text(Library(WORLD, seed, PAST).textbook(5)) for seed in (0, 1))
    assert one != other
    assert one == shelf_text(Library(WORLD, 0, PAST).textbook(5))
