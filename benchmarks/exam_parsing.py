"""How long reading an answer takes: 100,000 random strings, and replies of the length models write.

Run: python benchmarks/exam_parsing.py
"""

import random
import statistics
import time
from collections.abc import Iterable

from medllm.exam.extract.answer import parse

PIECES = [
    "答え",
    "正解",
    "【回答】",
    "Answer",
    "\\boxed{",
    "}",
    "a",
    "b",
    "Ｃ",
    "②",
    "、",
    "と",
    ":",
    "。",
    "\n",
    "{",
    '"answer"',
    "<think>",
    "</think>",
    "問題:",
    "<|im_end|>",
    "1.2",
    "①②",
    "ではなく",
    "または",
    "(",
    ")",
    "*",
    "😀",
    "\x00",
    "　",
    "ﾊﾟ",
]
"""What random strings are put together from, here and in the tests: signs that an answer is read by, and noise."""

SENTENCE = "この症例では症状と検査所見から診断を考える。選択肢を順に検討すると、aは誤りであり、bは正しい。\n"


def timed(name: str, replies: Iterable[str]) -> None:
    """Print median, 99th percentile and longest time of a reading."""
    took = []
    for reply in replies:
        begin = time.perf_counter()
        parse(reply)
        took.append(1000 * (time.perf_counter() - begin))
    took.sort()
    late = took[int(len(took) * 0.99)]
    times = f"median {statistics.median(took):.3f} ms   99 % {late:.3f} ms   most {took[-1]:.1f} ms"
    print(f"{name:<40}{len(took):>8,} read   {times}")


def main() -> None:
    """Time random strings and long replies."""
    chance = random.Random(1)
    timed("random pieces, up to 30", ("".join(chance.choices(PIECES, k=chance.randrange(30))) for _ in range(50_000)))
    codes = range(0x20, 0x3100)
    timed(
        "random characters, up to 200",
        ("".join(map(chr, chance.choices(codes, k=chance.randrange(200)))) for _ in range(50_000)),
    )
    timed("explanations of 500 characters", (SENTENCE * 10 + f"答え:{chance.choice('abcde')}" for _ in range(5_000)))
    timed("explanations of 20,000 characters", (SENTENCE * 400 + f"答え:{chance.choice('abcde')}" for _ in range(200)))


if __name__ == "__main__":
    main()
