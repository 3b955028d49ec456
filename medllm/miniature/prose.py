"""The textbook's sentences on the invented medicine, in several wordings."""

import random

from medllm.miniature.world import JAPANESE, RELATIONS, Relation, World

ONE_FACT = (
    "{d}の{r}は{v}である。",
    "{d}では{r}として{v}が知られている。",
    "{r}が{v}である疾患に{d}がある。",
    "{v}は{d}の{r}である。",
)
"""The first two go from disease to value, as questions do, and are the most frequent."""
CASE = (
    "{c}による{s}は{d}である。",
    "{s}があり{c}が見つかる疾患に{d}がある。",
)
DAYS = ("{d}の治療日数は{n}である。", "{d}では治療を{n}日行う。")


def fact(disease: str, relation: Relation, value: str, source: random.Random) -> str:
    """One fact as a sentence."""
    return source.choices(ONE_FACT, (3, 3, 1, 1))[0].format(d=disease, r=JAPANESE[relation], v=value)


def sentence(world: World, disease: str, source: random.Random) -> str:
    """A sentence on a disease: mostly one fact, sometimes its picture (cause and symptom) or its days of treatment."""
    draw, facts = source.random(), world.facts[disease]
    if draw < 0.08:
        return source.choice(DAYS).format(d=disease, n=world.days[disease])
    if draw < 0.27 and disease in world.recognisable:
        return source.choice(CASE).format(d=disease, c=facts["cause"], s=facts["symptom"])
    relation = source.choice(RELATIONS)
    return fact(disease, relation, facts[relation], source)


def paragraph(world: World, diseases: tuple[str, ...], source: random.Random, sentences: int = 6) -> str:
    """Sentences on diseases drawn at random."""
    return "".join(sentence(world, disease, source) for disease in source.choices(diseases, k=sentences)) + "\n\n"
