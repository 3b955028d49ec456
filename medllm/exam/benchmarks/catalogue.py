"""The catalogue: every benchmark with its source, licence, date and permitted use, and how its folder is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from medllm.errors import DataError
from medllm.exam.benchmarks import custom, licensing, medical
from medllm.exam.question import Language, Question, Translation, index


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Facts about an exam set that are needed before a model is tested or trained on it."""

    name: str
    title: str
    source: str
    """Place of publication: `github:ORG/NAME` or `hub:ORG/NAME` (a dataset repo)."""
    revision: str
    """The commit this loader was written against; empty where only the documented columns were available."""
    files: str
    """The files the loader looks for, as the source lays them out."""
    license: str
    citation: str
    first: date | None
    """The day of the set's earliest sitting; None for a set that is not an exam with a sitting."""
    published: date
    """The day the set was published. An older text cannot copy the set, but can copy the set's sources."""
    test_only: bool
    """Whether the set may only be used for testing, never for training."""
    language: Language
    questions: int
    """Number of questions of the whole set that can be asked and scored."""
    left_out: str = ""
    """The published questions that `questions` does not count, with the reason."""

    @property
    def hub(self) -> str | None:
        """The dataset repo on the Hub; None for a set published elsewhere."""
        return self.source.removeprefix("hub:") if self.source.startswith("hub:") else None


_MHLW = "MHLW exam text, PDL-1.0"
_MED_EN = "github:aistairc/medLLM_QA_benchmark"
_MED_EN_COMMIT = "614599e5"

_ALL = (
    Benchmark(
        name="igakuqa",
        title="IgakuQA: Japanese medical licensing exams 2018-2022",
        source="github:jungokasai/IgakuQA",
        revision="2bc4c3d159cf5505f6253d24a909fbd53237e239",
        files="data/YEAR/NNN-S.jsonl, data/YEAR/NNN-S_metadata.jsonl, prompts/prompt.jsonl",
        license=f"{_MHLW}; the repository has no licence file: read it from your own clone, do not redistribute",
        citation="Kasai et al. 2023, arXiv:2303.18027",
        first=date(2018, 2, 10),
        published=date(2023, 3, 31),
        test_only=True,
        language="ja",
        questions=2000,
    ),
    Benchmark(
        name="igakuqa119",
        title="IgakuQA119: the 119th Japanese medical licensing exam",
        source="github:docto-rin/IgakuQA119",
        revision="2d94239",
        files="question/119S_json.json (any sections A to F), results/correct_answers.csv",
        license="Apache-2.0 (MHLW exam text, PDL-1.0)",
        citation="github.com/docto-rin/IgakuQA119",
        first=date(2025, 2, 8),
        published=date(2025, 2, 8),
        test_only=True,
        language="ja",
        questions=400,
    ),
    Benchmark(
        name="jmle2026",
        title="JMLE2026-Bench: the 120th Japanese medical licensing exam",
        source="github:naoto-iwase/JMLE2026-Bench",
        revision="76c4b294",
        files="jmle2026_dataset.json",
        license="CC-BY-4.0 (MHLW exam text, PDL-1.0)",
        citation="Iwase 2026, github.com/naoto-iwase/JMLE2026-Bench",
        first=date(2026, 2, 7),
        published=date(2026, 2, 27),
        test_only=False,
        language="ja",
        questions=400,
    ),
    Benchmark(
        name="yakugakuqa",
        title="YakugakuQA: Japanese pharmacist licensing exams 2012-2024, with expert explanations",
        source="github:EQUES-Inc/pharma-LLM-eval",
        revision="998387e8",
        files="NNN.jsonl (097 to 109)",
        license="CC-BY-SA-4.0; its card asks for benchmark use",
        citation="Ono et al. 2025, arXiv:2505.16661",
        first=date(2012, 3, 3),
        published=date(2024, 12, 10),
        test_only=False,
        language="ja",
        questions=4463,
        left_out="22 of 4485: 20 officially without an answer, 2 whose text is a picture",
    ),
    Benchmark(
        name="jmmlu-med",
        title="JMMLU: five medical subjects of human-checked Japanese MMLU",
        source="github:nlp-waseda/JMMLU",
        revision="762cbf19",
        files="SUBJECT.csv (anatomy, clinical_knowledge, college_medicine, medical_genetics, professional_medicine)",
        license="CC-BY-SA-4.0",
        citation="Yin et al. 2024, arXiv:2402.14531",
        first=None,
        published=date(2024, 2, 22),
        test_only=True,
        language="ja",
        questions=681,
    ),
    Benchmark(
        name="mmmlu-ja-med",
        title="MMMLU (JA_JP): the paper's five medical subjects",
        source="hub:openai/MMMLU",
        revision="",
        files="test/mmlu_JA-JP.csv, or JA_JP/*.parquet, with columns Question, A, B, C, D, Answer, Subject",
        license="MIT",
        citation="OpenAI 2024; Hendrycks et al. 2020, arXiv:2009.03300",
        first=None,
        published=date(2024, 9, 23),
        test_only=True,
        language="ja",
        questions=945,
    ),
    Benchmark(
        name="medqa",
        title="MedQA (USMLE), English, five options",
        source=_MED_EN,
        revision=_MED_EN_COMMIT,
        files="medqa_en.jsonl",
        license="MIT",
        citation="Jin et al. 2020, arXiv:2009.13081",
        first=None,
        published=date(2020, 9, 28),
        test_only=True,
        language="en",
        questions=1273,
    ),
    Benchmark(
        name="medmcqa",
        title="MedMCQA, English, development set",
        source=_MED_EN,
        revision=_MED_EN_COMMIT,
        files="medmcqa.jsonl",
        license="MIT",
        citation="Pal et al. 2022, arXiv:2203.14371",
        first=None,
        published=date(2022, 3, 27),
        test_only=True,
        language="en",
        questions=4183,
    ),
    Benchmark(
        name="pubmedqa",
        title="PubMedQA, English, expert-labelled test set",
        source=_MED_EN,
        revision=_MED_EN_COMMIT,
        files="pubmedqa.jsonl",
        license="MIT",
        citation="Jin et al. 2019, arXiv:1909.06146",
        first=None,
        published=date(2019, 9, 13),
        test_only=True,
        language="en",
        questions=500,
    ),
    Benchmark(
        name="medqa-ja",
        title="MedQA in Japanese translation (JMedBench)",
        source="hub:Coldog2333/JMedBench",
        revision="",
        files="medqa_jp/test.jsonl (or parquet) with columns sample_id, question, options, answer_idx",
        license="as the original (MIT); machine-translated",
        citation="Jiang et al. 2024, arXiv:2409.13317",
        first=None,
        published=date(2024, 9, 20),
        test_only=True,
        language="ja",
        questions=1273,
    ),
    Benchmark(
        name="medmcqa-ja",
        title="MedMCQA in Japanese translation (JMedBench)",
        source="hub:Coldog2333/JMedBench",
        revision="",
        files="medmcqa_jp/test.jsonl (or parquet) with columns sample_id, question, options, answer_idx",
        license="as the original (MIT); machine-translated",
        citation="Jiang et al. 2024, arXiv:2409.13317",
        first=None,
        published=date(2024, 9, 20),
        test_only=True,
        language="ja",
        questions=4183,
    ),
    Benchmark(
        name="pubmedqa-ja",
        title="PubMedQA in Japanese translation (JMedBench)",
        source="hub:Coldog2333/JMedBench",
        revision="",
        files="pubmedqa_jp/test.jsonl (or parquet) with columns sample_id, question, options, answer_idx",
        license="as the original (MIT); machine-translated",
        citation="Jiang et al. 2024, arXiv:2409.13317",
        first=None,
        published=date(2024, 9, 20),
        test_only=True,
        language="ja",
        questions=1000,
    ),
)

CATALOGUE: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
"""Every benchmark by the name recipes and commands use."""


Loader = Callable[[Path, str], list[Question]]

_LOADERS: dict[str, Loader] = {
    "igakuqa": licensing.read_igakuqa,
    "igakuqa119": licensing.read_igakuqa119,
    "jmle2026": licensing.read_jmle2026,
    "yakugakuqa": licensing.read_yakugakuqa,
    "jmmlu-med": medical.read_jmmlu,
    "mmmlu-ja-med": medical.read_mmmlu,
    "medqa": medical.read_english,
    "medmcqa": medical.read_english,
    "pubmedqa": medical.read_english,
    "medqa-ja": medical.read_japanese,
    "medmcqa-ja": medical.read_japanese,
    "pubmedqa-ja": medical.read_japanese,
}


def load(name: str, folder: Path) -> list[Question]:
    """Load the questions of a benchmark, in their published order.

    A name outside the catalogue is a custom exam: `folder` (or the file itself) holds it as JSON lines with
    the columns of docs/evaluation.md.
    """
    if name not in CATALOGUE:
        questions = custom.read(folder, name)
    else:
        questions = _LOADERS[name](folder, name) if folder.exists() else []
        if not questions:
            raise DataError("exam.not-in-folder", f"{folder}: holds no {name}. {how_to_fetch(name, folder)}")
    index(questions)
    return questions


def name_of_past_exam(stated: str | None, source: str, folder: Path) -> str:
    """Name an exam set that a recipe learns from: as stated, an imported one by its folder, any other `own`.

    `source` is what the recipe writes, `./ward` or `ORG/ward@REVISION`; `folder` is where its files lie now. The
    name is a part of every draw's seed, so folders that no import wrote keep `own`.
    """
    if stated or not (folder / custom.IMPORT_REPORT).is_file():
        return stated or "own"
    name = Path(source.partition("@")[0]).name or folder.resolve().name
    return "own" if name in CATALOGUE else name


TRANSLATED = {
    "medqa": "medqa-ja",
    "medmcqa": "medmcqa-ja",
    "pubmedqa": "pubmedqa-ja",
    "medqa-ja": "medqa",
    "medmcqa-ja": "medmcqa",
    "pubmedqa-ja": "pubmedqa",
}
"""Sets that are each other's translation, where one folder has both."""


def translations(name: str, folder: Path) -> list[Translation]:
    """Load the published translations of a benchmark's questions from its folder, for the leakage audit.

    IgakuQA publishes `*_translate.jsonl`; a set and its translated twin are each other's translation; a
    custom exam has them in columns `text_LANGUAGE` and `choices_LANGUAGE`, or as rows of `translations/*.jsonl`.
    """
    if name == "igakuqa":
        return licensing.igakuqa_translations(folder)
    if name not in CATALOGUE:
        return custom.translations(folder)
    twin = TRANSLATED.get(name)
    translated = _LOADERS[twin](folder, twin) if twin and folder.is_dir() else []
    return [Translation(twin.question_id, twin.language, _whole(twin), twin.choices) for twin in translated]


def _whole(question: Question) -> str:
    return f"{question.context}\n{question.text}" if question.context else question.text


def how_to_fetch(name: str, folder: Path) -> str:
    """Name the files of a set that are expected in a folder, its licence and the command that fetches them."""
    benchmark = CATALOGUE[name]
    where, repository = benchmark.source.split(":", 1)
    command = (
        f"hf download {repository} --repo-type dataset --revision COMMIT --local-dir {folder}"
        if where == "hub"
        else f"git clone https://github.com/{repository} {folder}"
    )
    at = f" at commit {benchmark.revision}" if benchmark.revision else " (pin the commit you take)"
    return (
        f"Expected there: {benchmark.files}."
        f" The set is {repository}{at}, licence: {benchmark.license}. Fetch it: {command}"
    )


def worked_examples(name: str, folder: Path) -> list[Question]:
    """Load the worked examples of a benchmark, none where it has none: IgakuQA's prompt file, or exemplars.jsonl."""
    return licensing.igakuqa_exemplars(folder) if name == "igakuqa" else custom.exemplars(folder, name)


def exemplars(name: str, folder: Path) -> list[Question]:
    """Load the worked examples of a benchmark, or raise DataError where it has none."""
    examples = worked_examples(name, folder)
    if not examples:
        raise DataError(
            "exam.no-exemplars",
            f"{folder}: {name} has no worked examples. Set `shots: 0`, or write questions of an exam that was held"
            f" before the cutoff, with explanations, into {folder / 'exemplars.jsonl'}.",
        )
    return examples
