"""`medllm power`: how many questions a claim about explaining needs."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from medllm.cli.app import app


@app.command()
def power(
    margin: Annotated[float, typer.Option(help="Margin of the claim, in points of 100 questions.")] = 2.0,
    churn: Annotated[float, typer.Option(help="Share of questions whose verdict changes, either way.")] = 0.12,
    power_: Annotated[float, typer.Option("--power", help="Probability that the claim is proved if it is true.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Error level of each one-sided test.")] = 0.05,
    design_effect: Annotated[float, typer.Option(help="Above 1 where questions share vignettes.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how many questions a claim about a paired change needs.

    `medllm stability` reports the churn (kept, lost and gained answers) of a model that was asked before.
    """
    from medllm.exam.power import CLAIMS, sample_size

    sizes = [
        sample_size(claim, margin=margin / 100, churn=churn, power=power_, alpha=alpha, design_effect=design_effect)
        for claim in CLAIMS
        if claim != "different" or margin / 100 <= churn
    ]
    if as_json:
        print(json.dumps([asdict(size) for size in sizes], indent=2))
        return
    worded = {
        "equivalent": f"explaining changes the score by less than {margin:g} points",
        "not-worse": f"explaining costs less than {margin:g} points",
        "different": f"explaining changes the score, if it does so by {margin:g} points",
    }
    print(f"With {100 * churn:g} % of the answers changing, a power of {100 * power_:g} % and an alpha of {alpha:g}:")
    for size in sizes:
        print(f"  {size.questions:>7,} questions to claim that {worded[size.claim]}")
