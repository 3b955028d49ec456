"""What a few-shot prompt and a draw cost on a CPU: scores written out or in blocks, a vocabulary sorted or not.

Run: python benchmarks/prompt.py
One layer of a model of SmolLM2-135M's shape in bfloat16: 4 questions of 413 tokens to 3 models, after 1,493 tokens of
worked examples; beside it the layer's matrix products. Then one token of 49,152. Seconds of CPU, the best of 3.
"""

import time
from collections.abc import Callable

import torch

from medllm.generation.engine import attention
from medllm.generation.engine.attention import Parts, Prefix, Rows, Shared
from medllm.generation.engine.decoding import _sample_token

MODELS, QUESTIONS, OWN, PREFIX = 3, 4, 413, 1493
HEADS, KEYS, SIZE, WIDTH, INNER = 9, 3, 64, 576, 1536
VOCABULARY = 49_152


def took(work: Callable[[], object]) -> float:
    """The least CPU of three times, in milliseconds."""
    found = []
    for _ in range(3):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return 1e3 * min(found)


def batch() -> Parts:
    """Rows of one length; padding changes neither way's work."""
    rows = MODELS * QUESTIONS

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(torch.bfloat16)

    prefixes = [Prefix([drawn(KEYS, PREFIX, SIZE)], [drawn(KEYS, PREFIX, SIZE)]) for _ in range(MODELS)]
    slices = [slice(at * QUESTIONS, (at + 1) * QUESTIONS) for at in range(MODELS)]
    shared = Shared([str(at) for at in range(MODELS)], prefixes, slices, PREFIX)
    positions = PREFIX + torch.arange(OWN).expand(rows, OWN)
    span = Rows(positions, torch.ones(rows, OWN, dtype=torch.bool), shared)
    query = drawn(rows, KEYS, HEADS // KEYS * OWN, SIZE)
    return Parts(query, drawn(rows, KEYS, OWN, SIZE), drawn(rows, KEYS, OWN, SIZE), span, 0, SIZE**-0.5, OWN, None)


def products() -> Callable[[], object]:
    """The layer's other matrix products, for the same rows."""
    shapes = [(WIDTH, WIDTH), (KEYS * SIZE, WIDTH), (KEYS * SIZE, WIDTH), (WIDTH, WIDTH), *[(INNER, WIDTH)] * 2]
    weights = [torch.randn(*shape).to(torch.bfloat16) for shape in [*shapes, (WIDTH, INNER)]]
    given = {width: torch.randn(MODELS * QUESTIONS * OWN, width).to(torch.bfloat16) for width in (WIDTH, INNER)}
    return lambda: [torch.nn.functional.linear(given[weight.shape[1]], weight) for weight in weights]


def sorted_draw(logits: torch.Tensor, number: float) -> int:
    """The draw with the whole vocabulary put in order."""
    likely, tokens = logits.float().softmax(-1).sort(descending=True, stable=True)
    return int(tokens[int(torch.searchsorted(likely.double().cumsum(-1), number, right=True))])


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = batch()
    written = took(lambda: attention._at_once(parts, None))
    blocks = took(lambda: attention._in_blocks(parts))
    print(f"attention of a layer, all scores written out  {written:8.1f} ms")
    print(f"attention of a layer, in blocks (ours)        {blocks:8.1f} ms   {written / blocks:.2f} x")
    print(f"the layer's other products                    {took(products()):8.1f} ms")
    logits = (torch.randn(VOCABULARY) * 4).to(torch.bfloat16)
    numbers = [(number + 0.5) / 20 for number in range(20)]
    whole = took(lambda: [sorted_draw(logits, number) for number in numbers]) / len(numbers)
    ours = took(lambda: [_sample_token(logits, 1.0, 1.0, number) for number in numbers]) / len(numbers)
    print(f"a draw, the vocabulary sorted                 {whole:8.2f} ms")
    print(f"a draw, the likeliest sorted (ours)           {ours:8.2f} ms   {whole / ours:.2f} x")


if __name__ == "__main__":
    main()
