"""The facts of a stage as one sentence."""

from medllm.pipeline.facts import describe_facts


def test_a_corpus_says_what_it_kept_and_why_it_dropped_the_rest():
    facts = {"documents": 21, "dropped": 5, "tokens": 1_200_000, "characters": 9}
    facts["reasons"] = {"duplicate": 3, "no_published_date": 2, "leak": 0}
    text = "kept 21 of 26 documents (3 duplicate, 2 no published date), 1.2 M tokens"
    assert describe_facts("corpus", facts) == text
    assert describe_facts("corpus", {**facts, "tokens": None, "dropped": 0}) == "kept 21 of 21 documents, 9 characters"


def test_a_training_says_what_it_learnt_from_and_its_loss():
    facts = {"tokens_trained": 98_760, "steps": 1_200, "epochs": 2.0, "first_loss": 6.61, "last_loss": 2.5}
    text = "trained on 98.8 k tokens in 1,200 updates (2 epochs), loss 6.610 at first and 2.500 at last"
    assert describe_facts("cpt", facts) == text
    facts = {"trained": 6, "pairs": 7, "steps": 3, "epochs": 1.0, "first": None, "last": None}
    assert describe_facts("rpo", facts) == "trained on 6 of 7 pairs in 3 updates (1 epochs)"


def test_a_merge_says_what_its_certificate_found():
    name = "(merged against adapter)"
    certificate = {"verdict": "passed", f"same answers {name}": 31, f"answers {name}": 32}
    text = "a model of 180.2 kB, whose certificate passed: 31 of 32 answers are the adapter's"
    assert describe_facts("merge", {"bytes": 180_224, "certificate": certificate}) == text
    assert describe_facts("merge", {"bytes": 180_224}) == "a model of 180.2 kB, without a certificate"


def test_facts_of_another_version_give_no_sentence_and_no_error():
    assert describe_facts("preferences", {"stage": "preferences"}) == ""
