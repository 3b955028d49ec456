"""The canary set: invented questions with certain keys, on which two sets of weights are compared."""

import random

from medllm.exam.question import LETTERS, Question

DRUGS = ("アセトアミノフェン", "アモキシシリン", "ゲンタマイシン", "フェニトイン", "メトトレキサート", "バンコマイシン")
SHOTS = 3


def parity_questions(count: int, seed: int = 0) -> tuple[list[Question], list[Question]]:
    """`count` questions on doses, and three worked examples; the same for the same seed, and in no exam."""
    draw = random.Random(f"canary {seed}")
    made = [_question(number, draw) for number in range(count + SHOTS)]
    return made[SHOTS:], made[:SHOTS]


def _question(number: int, draw: random.Random) -> Question:
    weight, dose = draw.randrange(12, 90), draw.randrange(2, 40)
    right = weight * dose
    wrong = draw.sample([weight + dose, right * 10, right // 2 or 1, right + weight, right + 3 * dose], 4)
    choices = [right, *wrong]
    draw.shuffle(choices)
    letter = LETTERS[choices.index(right)]
    return Question(
        question_id=f"canary-{number}",
        benchmark="canary",
        text=f"体重{weight} kgの患者に{draw.choice(DRUGS)}を{dose} mg/kgで投与する。投与量はどれか。",
        choices=tuple(f"{choice} mg" for choice in choices),
        gold=(frozenset(letter),),
        key=(letter,),
        explanation=f"{weight} kg × {dose} mg/kg = {right} mgである。",
    )
