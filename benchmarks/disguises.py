"""What the leakage audit sees of exam questions that are disguised: dropped, seen for review and missed, by disguise.

Run: python benchmarks/disguises.py IGAKUQA_FOLDER [--negatives FOLDER] [--items 200]
Each question is planted between two paragraphs. `--negatives` counts false flags on texts that hold no question.
"""

import argparse
import csv
import html
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from medllm.corpus.decontaminate.exam_items import ExamItem, held_out
from medllm.corpus.decontaminate.matcher import ExamIndex, match_in_slices

Draw = random.Random
Disguise = Callable[[ExamItem, Draw], str]
BEFORE = "この章では、救急外来で出会うことの多い訴えについて、まず経過を聞くことが大切である。\n"
AFTER = "\n以上のことから、日ごろの備えが欠かせない。次の章では、入院の後の流れについて述べることにする。"
WHY = "これについては成書に詳しく、発症の機序と経過、検査の値と画像の読み方、治療の進め方が順に述べられている。"
WORDS = re.compile(r"[一-龥々]{2,}|[ァ-ヶー]{2,}|[A-Za-z]{3,}")
LOOKS = "日目白自末未士土千干人入大犬太右石左在力刀己巳矢失由田申甲力カロ口ニ二ハ八エ工"


def whole(item: ExamItem, draw: Draw) -> str:
    """As printed."""
    return item.text


def shuffled(item: ExamItem, draw: Draw) -> str:
    """Options in another order, numbered."""
    options = draw.sample(item.options, len(item.options))
    return item.question + "\n" + "\n".join(f"({number}) {one}" for number, one in enumerate(options, 1))


def readings(item: ExamItem, draw: Draw) -> str:
    """A reading in brackets behind each word of kanji."""
    return re.sub(r"([一-龥々]{2,})", lambda found: found[1] + "（" + "よ" * (2 * len(found[1])) + "）", item.text)


def hiragana(item: ExamItem, draw: Draw) -> str:
    """Hiragana for katakana."""
    return "".join(chr(ord(one) - 0x60) if "ァ" <= one <= "ヶ" else one for one in item.text)


def ruby(item: ExamItem, draw: Draw) -> str:
    """Readings as ruby of HTML, and bold tags in the text."""
    marked = re.sub(r"([一-龥々]{2,})", r"<ruby>\1<rp>(</rp><rt>よみ</rt><rp>)</rp></ruby>", item.text)
    return re.sub("どれか", "<b>どれ</b>か", marked)


def escapes(item: ExamItem, draw: Draw) -> str:
    r"""Characters as \uXXXX."""
    return json.dumps(item.text)[1:-1]


def entities(item: ExamItem, draw: Draw) -> str:
    """Blanks and characters as entities of HTML."""
    return "&nbsp;".join(f"&#{ord(one)};" if draw.random() < 0.3 else html.escape(one) for one in item.text)


def commentary(item: ExamItem, draw: Draw) -> str:
    """Each option with a commentary of 150 characters."""
    return item.question + "\n" + "\n".join(f"{one}：{WHY * 3}" for one in item.options)


def apart(item: ExamItem, draw: Draw) -> str:
    """Options first, then two paragraphs, then the question."""
    return "選択肢 " + "、".join(item.options) + "\n" + WHY * 8 + "\n" + item.question


def table(item: ExamItem, draw: Draw) -> str:
    """A table of Markdown."""
    return f"| 問題 | {item.question} |\n|---|---|\n" + "\n".join(
        f"| **{n}** | {o} |" for n, o in zip("abcdefgh", item.options, strict=False)
    )


def noise(rate: float) -> Disguise:
    """Errors of a scanner: a wrong character, one too few or a blank too many."""

    def scan(item: ExamItem, draw: Draw) -> str:
        return "".join(
            one if draw.random() >= rate else draw.choice([draw.choice(LOOKS), draw.choice(LOOKS), "", f"{one} "])
            for one in item.text
        )

    return scan


def retold(rate: float) -> Disguise:
    """Other words of the same kind for a part of the words."""

    def retell(item: ExamItem, draw: Draw) -> str:
        return WORDS.sub(
            lambda found: draw.choice(POOL[found[0][0] >= "一"]) if draw.random() < rate else found[0], item.text
        )

    return retell


POOL: dict[bool, list[str]] = {False: [], True: []}
DISGUISES: dict[str, Disguise] = {
    "as printed": whole,
    "options shuffled, numbered": shuffled,
    "readings in brackets": readings,
    "hiragana for katakana": hiragana,
    "ruby and tags": ruby,
    r"\uXXXX": escapes,
    "entities of HTML": entities,
    "commentary between options": commentary,
    "options apart from the question": apart,
    "table of Markdown": table,
    "scanned, 5 % wrong": noise(0.05),
    "scanned, 10 % wrong": noise(0.10),
    "1 word in 5 replaced": retold(0.2),
    "2 words in 5 replaced": retold(0.4),
}


def texts_of(folder: Path) -> Iterator[str]:
    """Every text of the JSONL and CSV files below a folder: all cells of a row together."""
    csv.field_size_limit(1 << 24)
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield "\n".join(_strings(json.loads(line)))
    for path in sorted(folder.rglob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from ("\n".join(row) for row in csv.reader(stream))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exam", type=Path)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--negatives", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    items = held_out([("igakuqa", given.exam)])
    index = ExamIndex(items)
    japanese = [item for item in items if not item.name.endswith("(en)")]
    for item in japanese:
        for word in WORDS.findall(item.text):
            POOL[word[0] >= "一"].append(word)
    draw = random.Random(0)
    chosen = draw.sample([item for item in japanese if item.options], given.items)
    print(f"{len(items)} items held out; of {given.items} questions\n")
    print("| disguise | dropped | for review | missed |\n|---|---|---|---|")
    for name, disguise in DISGUISES.items():
        print_row(name, index, [(item, BEFORE + disguise(item, draw) + AFTER) for item in chosen])
    english = given.exam / "data" if (given.exam / "data").is_dir() else given.exam
    rows: list[dict[str, str]] = []
    for path in sorted(english.glob("*/*_translate.jsonl")):
        rows += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    by_name = {item.name: item for item in japanese}
    planted = [
        (by_name[f"igakuqa/{row['problem_id']}"], row["problem_text_en"] + "\n" + "\n".join(row["choices_en"]))
        for row in rows
    ]
    print_row(f"in English, as published ({len(planted)})", index, planted)
    for folder in given.negatives:
        count_negatives(folder, index)


def print_row(name: str, index: ExamIndex, planted: list[tuple[ExamItem, str]]) -> None:
    """Print what is seen of the questions in these texts; a sighting of another question does not count."""
    numbers = {item.name: number for number, item in enumerate(index.items)}
    counts = {"drop": 0, "review": 0, "missed": 0}
    for (item, _), (flagged, _) in zip(planted, match_in_slices(index, [text for _, text in planted]), strict=True):
        own = {numbers[item.name], numbers.get(f"{item.name} (en)")}
        best = max((one.containment for one in flagged if one.item in own), default=0.0)
        counts["drop" if best >= 0.5 else "review" if best >= 0.3 else "missed"] += 1
    print(f"| {name} | {counts['drop']} | {counts['review']} | {counts['missed']} |", flush=True)


def count_negatives(folder: Path, index: ExamIndex) -> None:
    """Print how many texts that hold no question are flagged, and how quick that is."""
    texts = list(texts_of(folder))
    size = sum(len(text.encode()) for text in texts)
    begun = time.process_time()
    seen = match_in_slices(index, texts)
    spent = time.process_time() - begun
    flagged = [(n, one) for n, (found, _) in enumerate(seen) for one in found]
    dropped, found = len({n for n, one in flagged if one.containment >= 0.5}), len({n for n, _ in flagged})
    speed = size / 1e6 / spent
    print(f"\n{folder.name}: {len(texts)} texts, {found} flagged ({dropped} to drop), {speed:.1f} MB a second of CPU")
    for n, one in flagged[:20]:
        print(f"  {one.containment:.2f} {index.items[one.item].name} {one.part}: {texts[n][:60]!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
