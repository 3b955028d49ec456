"""The invented medicine is one medicine for one seed, and every name in it is a name of its own."""

import re

from medllm.miniature.world import COUNTS, make_world


def test_the_same_seed_gives_the_same_medicine_and_another_seed_another():
    assert make_world(0) == make_world(0)
    assert make_world(0).facts != make_world(1).facts


def test_every_name_is_invented_katakana_and_used_once():
    world = make_world()
    names = [name for pool in world.pools.values() for name in pool]
    names += [*world.diseases, *world.towns, *world.people]
    assert len(names) == len(set(names)) > 250
    assert all(re.fullmatch(r"[ァ-ヶ]{2,6}[菌毒痛斑症病炎町村氏]?(試験|造影)?", name) for name in names)


def test_each_disease_has_one_kind_and_the_counts_are_the_stated_ones():
    world = make_world()
    assert {kind: len(world.of_kind(kind)) for kind in COUNTS} == COUNTS


def test_cause_and_symptom_name_every_recognisable_disease():
    world = make_world()
    pictures = [(world.facts[d]["cause"], world.facts[d]["symptom"]) for d in world.diseases]
    for disease in world.recognisable:
        assert pictures.count((world.facts[disease]["cause"], world.facts[disease]["symptom"])) == 1
    assert len(world.recognisable) > 90
