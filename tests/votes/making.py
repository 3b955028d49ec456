"""Votes for the tests, made up."""

from medllm.votes.vote import Vote, digest


def vote(number: int, **changed: object) -> Vote:
    """A made-up vote; the number tells it from others."""
    fields: dict[str, object] = {
        "vote_id": digest(f"vote {number}")[:32],
        "time": "2026-01-01T00:00:00+00:00",
        "benchmark": "kakuu",
        "question_id": f"115A{number}",
        "model_a": "base",
        "model_b": "final",
        "completion_a": digest(f"a {number}"),
        "completion_b": digest(f"b {number}"),
        "length_a": 3,
        "length_b": 3,
        "choice": "a",
        "rater": "r1",
        "language": "ja",
        "seconds": 12.5,
        "results": "made-up",
        "use": "evaluation-only",
    }
    return Vote(**{**fields, **changed})  # type: ignore[arg-type]
