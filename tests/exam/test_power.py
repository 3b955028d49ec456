"""The number of questions that a claim needs, by hand, and by simulation of the claim itself."""

import numpy as np
import pytest

from medllm.exam.power import Claim, sample_size
from tests.refusals import refused


def test_the_numbers_are_those_of_the_formulas_by_hand():
    # (1.644854 + 1.281552)**2 * 0.12 / 0.02**2 = 2569.1; (1.644854 + 0.841621)**2 * 0.12 / 0.02**2 = 1854.8
    assert sample_size("equivalent", margin=0.02, churn=0.12).questions == 2570
    assert sample_size("not-worse", margin=0.02, churn=0.12).questions == 1855
    # (1.959964 * 0.12**0.5 + 0.841621 * (0.12 - 0.05**2)**0.5)**2 / 0.05**2 = 374.4
    assert sample_size("different", margin=0.05, churn=0.12).questions == 375


@pytest.mark.parametrize("claim", ["equivalent", "not-worse", "different"])
@pytest.mark.parametrize(("margin", "churn"), [(0.03, 0.12), (0.05, 0.3)])
def test_an_exam_of_that_size_proves_the_claim_as_often_as_was_asked(claim: Claim, margin: float, churn: float):
    size = sample_size(claim, margin=margin, churn=churn).questions
    shift = margin if claim == "different" else 0.0
    chances = [(churn - shift) / 2, 1 - churn, (churn + shift) / 2]
    draws = np.random.default_rng(1).multinomial(size, chances, size=4000)
    mean = (draws[:, 2] - draws[:, 0]) / size
    spread = np.sqrt((draws[:, 2] + draws[:, 0]) / size - mean**2)
    error = spread / size**0.5
    shares = {
        "different": np.abs(mean) > 1.959964 * error,
        "not-worse": mean - 1.644854 * error > -margin,
        "equivalent": np.abs(mean) + 1.644854 * error < margin,
    }
    assert shares[claim].mean() == pytest.approx(0.8, abs=0.025)


def test_a_design_effect_multiplies_the_questions():
    one = sample_size("not-worse", margin=0.02, churn=0.12)
    assert sample_size("not-worse", margin=0.02, churn=0.12, design_effect=1.5).questions == pytest.approx(
        1.5 * one.questions, abs=1
    )


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"margin": 0.0}, "exam.share-out-of-range"),
        ({"churn": 1.0}, "exam.share-out-of-range"),
        ({"power": 0.3}, "exam.share-out-of-range"),
        ({"alpha": 0.7}, "exam.share-out-of-range"),
        ({"margin": 0.2, "claim": "different"}, "exam.margin-above-churn"),
        ({"design_effect": 0.5}, "exam.design-effect-below-one"),
        ({"claim": "better"}, "exam.unknown-claim"),
    ],
)
def test_values_that_make_no_claim_are_refused(wrong: dict, code: str):
    with refused(code):
        sample_size(**{"claim": "not-worse", "margin": 0.02, "churn": 0.12, **wrong})
