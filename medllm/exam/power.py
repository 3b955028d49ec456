"""How many questions a claim about a paired change needs, before a model is asked."""

from dataclasses import dataclass
from math import ceil
from statistics import NormalDist
from typing import Literal

from medllm.errors import DataError

Claim = Literal["equivalent", "not-worse", "different"]
CLAIMS: tuple[Claim, ...] = ("equivalent", "not-worse", "different")


@dataclass(frozen=True, slots=True)
class SampleSize:
    """The questions that a claim needs, and what was assumed."""

    claim: Claim
    questions: int
    margin: float
    """The margin of the claim as a share of the questions: 0.02 is two points of 100."""
    churn: float
    """The share of questions whose verdict differs between the two prompts, in either direction."""
    power: float
    alpha: float
    design_effect: float


def sample_size(
    claim: Claim,
    *,
    margin: float,
    churn: float,
    power: float = 0.8,
    alpha: float = 0.05,
    design_effect: float = 1.0,
) -> SampleSize:
    """Compute the number of questions at which a paired claim is proved with a probability of `power`.

    - `equivalent`: the true change is zero, and the 1 - 2 `alpha` interval is within ±`margin` (two one-sided tests).
    - `not-worse`: the true change is zero, and the lower end of that interval is above -`margin`.
    - `different`: the true change is `margin`, and the 1 - `alpha` interval leaves out zero (McNemar).

    A question changes by -1, 0 or 1, so the variance of a paired change is `churn` minus the change's square
    (Connor 1987, Biometrics 43:207, for McNemar's test). `design_effect` is 1 for independent questions; vignettes that
    share a case raise it. The normal approximation holds from some ten changed questions on.

    Raises:
        DataError: A share out of its range, or a margin that the churn cannot reach.

    >>> sample_size("equivalent", margin=0.02, churn=0.12).questions
    2570
    >>> sample_size("not-worse", margin=0.02, churn=0.12).questions
    1855
    >>> sample_size("different", margin=0.05, churn=0.12).questions
    375
    """
    _check(claim, margin, churn, power, alpha, design_effect)
    normal = NormalDist()
    if claim == "different":
        reach = normal.inv_cdf(1 - alpha / 2) * churn**0.5 + normal.inv_cdf(power) * (churn - margin**2) ** 0.5
    else:
        beta_point = (1 + power) / 2 if claim == "equivalent" else power
        reach = (normal.inv_cdf(1 - alpha) + normal.inv_cdf(beta_point)) * churn**0.5
    questions = ceil(design_effect * (reach / margin) ** 2)
    return SampleSize(claim, questions, margin, churn, power, alpha, design_effect)


def _check(claim: str, margin: float, churn: float, power: float, alpha: float, design_effect: float) -> None:
    if claim not in CLAIMS:
        raise DataError("exam.unknown-claim", f"claim {claim}: is none of {', '.join(CLAIMS)}.")
    for name, value, least, most in (
        ("margin", margin, 0, 1), ("churn", churn, 0, 1), ("power", power, 0.5, 1), ("alpha", alpha, 0, 0.5)
    ):  # fmt: skip
        if not least < value < most:
            raise DataError(
                "exam.share-out-of-range", f"{name} {value:g}: must be between {least:g} and {most:g}, ends excluded."
            )
    if claim == "different" and margin > churn:
        raise DataError(
            "exam.margin-above-churn",
            f"margin {margin:g}: a change cannot exceed the share of changed questions, {churn:g}. Raise the churn.",
        )
    if design_effect < 1:
        raise DataError("exam.design-effect-below-one", f"design effect {design_effect:g}: must be 1 or more.")
