"""Public sets known to contain test exams, by name: comparing characters misses a translation or a rewriting."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownLeak:
    """A public set, or family of sets, that contains items of the exams."""

    name: str
    pattern: str
    """Matched against the last part of a repository's or folder's name, in lower case."""
    holds: tuple[str, ...]
    """The benchmarks whose items it holds."""
    why: str


KNOWN = (
    KnownLeak("IgakuQA", r"igaku-?qa(?!119)", ("igakuqa",), "it is the test: the exams of 2018 to 2022"),
    KnownLeak("MedRECT-ja", r"medrect", ("igakuqa",), "built from the medical licensing exams of 2018 to 2025"),
    KnownLeak("NMLE", r"^nmle|naistmle", ("igakuqa",), "the medical licensing exams 110 to 117, so 112 to 116 too"),
    KnownLeak("JMed48k", r"jmed48k", ("igakuqa",), "eleven national exams of 2005 to 2025"),
    KnownLeak("KokushiMD-10", r"kokushi-?md", ("igakuqa",), "ten national exams of 2020 to 2024"),
    KnownLeak("JMLE-CoT", r"jmle-?cot", ("igakuqa", "jmle2026"), "answers of teachers to medical licensing exams"),
    KnownLeak("JMLE2026-Bench", r"jmle-?2026", ("jmle2026",), "it is the test: the exam of 2026"),
    KnownLeak(
        "JMedBench",
        r"jmedbench",
        ("igakuqa", "medqa-ja", "medmcqa-ja", "pubmedqa-ja", "jmmlu-med", "mmmlu-ja-med"),
        "the Japanese test sets themselves",
    ),
    KnownLeak("MMMLU and JMMLU", r"^m?m?mlu$|jmmlu", ("mmmlu-ja-med", "jmmlu-med"), "the test sets themselves"),
    KnownLeak(
        "MedQA in any language",
        r"medqa|usmle",
        ("medqa", "medqa-ja"),
        "translations of the whole set went about, its test part included",
    ),
    KnownLeak("MedMCQA in any language", r"medmcqa", ("medmcqa", "medmcqa-ja"), "the set, its asked part included"),
    KnownLeak("PubMedQA in any language", r"pubmedqa", ("pubmedqa", "pubmedqa-ja"), "the set, its test part included"),
    KnownLeak("YakugakuQA", r"yakugakuqa", ("yakugakuqa",), "it is the test: the pharmacist exams of 2012 to 2024"),
)


def known_leaks(source: str, held_out: Iterable[str]) -> list[KnownLeak]:
    """Return the catalogue's entries that forbid training on a source while these exams are held out.

    >>> [one.name for one in known_leaks("someone/MedRECT-ja-train@v1", ["igakuqa"])]
    ['MedRECT-ja']
    >>> known_leaks("./texts", ["igakuqa"])
    []
    """
    name = source.split("@")[0].rstrip("/").rpartition("/")[2].lower()
    wanted = set(held_out)
    return [one for one in KNOWN if wanted.intersection(one.holds) and re.search(one.pattern, name)]
