"""Runs lm-evaluation-harness with a model whose replies are in a file: `python harness.py KEYS ARGUMENTS`."""

import json
import sys
from pathlib import Path

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

KEYS = json.loads(Path(sys.argv[1]).read_text("utf-8"))


@register_model("half")
class Half(LM):
    """Answers each prompt by its entry in the keys."""

    tokenizer_name = "none"

    def __init__(self, **_):
        super().__init__()

    def generate_until(self, requests, disable_tqdm=False):
        """Return a reply for each prompt."""
        return [KEYS[request.args[0]] for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        """Refuse: no task asks for it."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Refuse: no task asks for it."""
        raise NotImplementedError


if __name__ == "__main__":
    sys.argv[1:] = sys.argv[2:]
    cli_evaluate()
