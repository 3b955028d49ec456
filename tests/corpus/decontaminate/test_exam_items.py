"""Sets known to hold an exam are named while it is held out, and only then."""

import pytest

from medllm.corpus.decontaminate.exam_items import KNOWN, known_leaks
from medllm.exam.benchmarks import CATALOGUE


@pytest.mark.parametrize(
    ("source", "held_out", "names"),
    [
        ("someone/MedRECT-ja-train@v1", "igakuqa", ["MedRECT-ja"]),
        ("Coldog2333/JMedBench@main", "medqa-ja", ["JMedBench"]),
        ("someone/medqa-ja-translated@abc", "medqa-ja", ["MedQA in any language"]),
        ("openai/MMMLU@abc", "mmmlu-ja-med", ["MMMLU and JMMLU"]),
        ("./IgakuQA/", "igakuqa", ["IgakuQA"]),
        ("someone/MedRECT-ja-train@v1", "yakugakuqa", []),
        ("someone/igakuqa119@v1", "igakuqa", []),
        ("your-name/ja-medical-texts@v1", "igakuqa", []),
    ],
)
def test_a_set_is_known_by_its_name(source, held_out, names):
    assert [one.name for one in known_leaks(source, [held_out])] == names


def test_the_catalogue_of_leaks_speaks_of_exams_that_there_are():
    assert {name for one in KNOWN for name in one.holds} <= set(CATALOGUE)
