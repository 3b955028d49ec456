"""How a base reads rows that hold several texts: probed on short texts before the first update, and chosen by that.

A row of several documents is right where the model keeps them apart, which depends on its attention, on its recurrent
layers and on the kernel. So no list of model types decides it: the model in memory reads a row, and each text alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import Dataset
from transformers.utils.generic import is_flash_attention_requested

from medllm.errors import TrainingError
from medllm.training.cpt import RowCollator, RowTrainer
from medllm.training.pair_batches import PairCollator
from medllm.training.rpo import RpoTrainer
from medllm.training.targets import unreached
from medllm.weights.load import TextTokens
from medllm.weights.probing import NARROW, agrees, apart, narrowed, probe_texts, without_learning

BEGINNING = 8
"""Tokens of a text that a leak from the text before it changes most."""
HERE = "Remove the base from the recipe, or name another one."


@dataclass(frozen=True)
class Found:
    """What a probe chose."""

    sentences: tuple[str, ...]
    """For the person who runs it."""
    facts: dict[str, Any]


class Pieces(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """The documents of packed rows, one in each row: those of the first row, then those of the second."""

    def __init__(self, rows: Any) -> None:  # noqa: ANN401  a datasets.Dataset
        self.rows = rows
        self.places = [
            (number, begin, begin + length)
            for number, lengths in enumerate(rows["seq_lengths"])
            for begin, length in zip(_begins(lengths), lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int) -> dict[str, Any]:
        number, begin, end = self.places[at]
        row = self.rows[number]
        cut = {name: row[name][begin:end] for name in ("input_ids", "learnt") if name in row}
        return {**cut, "seq_lengths": [end - begin]}


def _begins(lengths: list[int]) -> list[int]:
    """Where each part begins.

    >>> _begins([3, 2, 4])
    [0, 3, 5]
    """
    return [sum(lengths[:number]) for number in range(len(lengths))]


def choose_rows(trainer: RowTrainer) -> Found:
    """Let the trainer's model read probe texts in packed rows and alone, and give each document its own row if needed.

    Raises TrainingError for a model that no layout of rows suits.
    """
    texts = probe_texts(TextTokens(trainer.processing_class))
    pad = trainer.processing_class.pad_token_id
    flash = is_flash_attention_requested(trainer.model.config)
    packed = any(len(lengths) > 1 for lengths in trainer.train_dataset["seq_lengths"])

    def off(*, together: bool, flat: bool) -> torch.Tensor:
        return _row_error(trainer, RowCollator(pad, flat=flat), texts, alone, together=together)

    def probe() -> tuple[bool, bool, float] | None:
        leak, dtype = _leak(trainer, texts, alone), trainer.model.dtype
        noise = off(together=False, flat=False)
        if not agrees(noise, leak, dtype):
            return None
        error = off(together=packed, flat=flash)
        if agrees(error, leak, dtype, noise):
            return packed, flash, 0.0
        return False, False, float((error / leak).max())

    with narrowed(trainer.model), without_learning(trainer.model), trainer.accelerator.autocast():
        alone = _alone(trainer, texts)
        missed = _unreached(trainer, texts)
        chosen = _agreed(probe)
        whole = trainer.whole or not _agreed(lambda: _tiles_are_right(trainer, texts))
    kind = _kind(trainer)
    if chosen is None:
        raise TrainingError(
            "training.no-row-layout",
            f"a model of type `{kind}` reads a text in a batch in another way than alone, so its loss would be "
            f"of other texts. {HERE}",
        )
    together, flat, share = chosen
    trainer.data_collator = replace(trainer.data_collator, flat=flat)
    if packed and not together:
        trainer.train_dataset = Pieces(trainer.train_dataset)
        trainer.eval_dataset = None if trainer.eval_dataset is None else Pieces(trainer.eval_dataset)
        sentence = (
            f"each document has its own row: in a packed row a `{kind}` model sees the documents before it (up to "
            f"{share:.0%} of what one text would show)"
        )
    else:
        sentence = "rows are packed; documents in one row do not see each other" if packed else "one document a row"
    sentence += _whole_notice(trainer, whole)
    trainer.whole = whole
    return Found((f"{sentence} (probed)", *missed), {"packed": together, "rows_trained": len(trainer.train_dataset)})


def choose_pairs(trainer: RpoTrainer) -> Found:
    """Let the trainer's model score probe pairs in each layout and alone, and take the first layout that is right.

    Raises TrainingError for a model that no layout suits.
    """
    texts = probe_texts(TextTokens(trainer.processing_class))
    pairs = _probe_pairs(texts)
    given: PairCollator = trainer.data_collator
    narrow = None if given.window is None else min(given.window, NARROW["sliding_window"])
    tried: list[tuple[PairCollator, str]] = [
        (given, "both answers of a pair share one row with their prompt"),
        (replace(given, shared=False), "each answer has a row of its own"),
        (replace(given, shared=False, aligned=False), "each answer has a row of its own, padded at its end"),
    ]
    tried = tried[0 if given.shared else 1 :]

    def probe() -> tuple[int, bool] | None:
        alone, leak = _pairs_alone(trainer, pairs)
        dtype = trainer.model.dtype
        for whole in dict.fromkeys((trainer.whole, True)):
            errors = [
                _pair_error(trainer, replace(collator, window=narrow), pairs, alone, whole=whole)
                for collator, _ in tried
            ]
            if agrees(errors[-1], leak, dtype):
                right = (number for number, error in enumerate(errors) if agrees(error, leak, dtype, errors[-1]))
                return next(right, len(errors) - 1), whole
        return None

    with narrowed(trainer.model), without_learning(trainer.model), trainer.accelerator.autocast():
        _alone(trainer, texts[:1])
        missed = _unreached(trainer, texts)
        chosen = _agreed(probe)
    kind = _kind(trainer)
    if chosen is None:
        raise TrainingError(
            "training.no-pair-layout",
            f"rpo: a model of type `{kind}` gives an answer another probability in a batch than alone, so its loss "
            f"would be of other answers. {HERE}",
        )
    number, whole = chosen
    trainer.data_collator, sentence = tried[number]
    if number and given.shared:
        sentence += f": in one row, a `{kind}` model sees one answer from the other"
    sentence += _whole_notice(trainer, whole)
    trainer.whole = whole
    return Found((f"{sentence} (probed)", *missed), {"layout": trainer.data_collator.layout})


def _kind(trainer: Any) -> str:  # noqa: ANN401  one of our trainers
    return str(trainer.model.config.get_text_config().model_type)


def _unreached(trainer: Any, texts: list[list[int]]) -> tuple[str, ...]:  # noqa: ANN401  one of our trainers
    """One sentence on adapted layers that no text goes through, or none."""
    names = unreached(trainer.model, lambda: _forward(trainer, {"input_ids": torch.tensor([texts[0]])}))
    return () if names is None else (names,)


def _whole_notice(trainer: Any, whole: bool) -> str:  # noqa: ANN401  one of our trainers
    if whole == trainer.whole:
        return ""
    return "; all logits are built at once, which takes more memory, for TRL's tiles do not give this model's"


def _agreed(probe: Callable[[], Any]) -> Any:  # noqa: ANN401  what the probe gives
    """What the first process finds: rounding may not make another one choose otherwise."""
    results = [probe()]
    broadcast_object_list(results)
    return results[0]


def _forward(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:  # noqa: ANN401  one of our trainers
    inputs = {
        name: value.to(trainer.model.device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }
    logits: torch.Tensor = trainer.model(**inputs, use_cache=False).logits.float()
    return logits


def _alone(trainer: Any, texts: list[list[int]]) -> list[torch.Tensor]:  # noqa: ANN401  one of our trainers
    """The logits of each text (tokens x vocabulary), read alone in a batch of one.

    Raises TrainingError where the beginning of a text changes with what follows it.
    """
    logits = [_forward(trainer, {"input_ids": torch.tensor([text])})[0] for text in texts]
    half = len(texts[0]) // 2
    # As many other tokens, so that a model that does not read them rounds as before.
    ending = (texts[-1] * len(texts[0]))[: len(texts[0]) - half]
    other = _forward(trainer, {"input_ids": torch.tensor([texts[0][:half] + ending])})[0]
    if not _agreed(lambda: agrees(apart(other[:half], logits[0][:half]), torch.ones(half), trainer.model.dtype)):
        raise TrainingError(
            "training.not-causal",
            f"a model of type `{_kind(trainer)}` reads the beginning of a text with what follows it, so it cannot "
            f"learn to continue texts. {HERE}",
        )
    return logits


def _leak(trainer: Any, texts: list[list[int]], alone: list[torch.Tensor]) -> torch.Tensor:  # noqa: ANN401
    """How far the logits of a text's first tokens move when it goes on from the others, by the number of the token."""
    joined = _forward(trainer, {"input_ids": torch.tensor([list(chain(*texts))])})[0]
    places = list(zip(_begins([len(text) for text in texts]), alone, strict=True))[1:]
    return _by_token([apart(joined[at : at + len(document)], document) for at, document in places])


def _row_error(
    trainer: Any,  # noqa: ANN401  one of our trainers
    collator: RowCollator,
    texts: list[list[int]],
    alone: list[torch.Tensor],
    *,
    together: bool,
) -> torch.Tensor:
    """How far the logits of texts in rows are from those of each alone, by the number of the token."""
    cut = max(1, len(texts) - 1) if together else 1
    groups = [list(range(cut)), *([number] for number in range(cut, len(texts)))]
    rows = [
        {"input_ids": list(chain(*(texts[n] for n in group))), "seq_lengths": [len(texts[n]) for n in group]}
        for group in groups
    ]
    logits = _forward(trainer, collator(rows))
    errors = []
    for row, group in enumerate(groups):
        for number, begin in zip(group, _begins([len(texts[n]) for n in group]), strict=True):
            if collator.flat:
                begin += sum(len(texts[n]) for before in groups[:row] for n in before)
            part = logits[0 if collator.flat else row, begin : begin + len(texts[number])]
            errors.append(apart(part, alone[number]))
    return _by_token(errors)


def _by_token(parts: list[torch.Tensor]) -> torch.Tensor:
    """The mean over texts for each of their first tokens."""
    count = min(BEGINNING, *(len(part) for part in parts))
    return torch.stack([part[:count] for part in parts]).mean(0)


def _tiles_are_right(trainer: Any, texts: list[list[int]]) -> bool:  # noqa: ANN401  one of our trainers
    """Whether TRL's head in tiles gives the log-probabilities of the model's own logits."""
    ids = torch.tensor([texts[0]], device=trainer.model.device)
    try:
        tiled = trainer.model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs[0].float()
    # A model that its backbone and head do not make up fails in its own way.
    except Exception:
        return False
    scores = _forward(trainer, {"input_ids": ids})[0, :-1].log_softmax(-1)
    own = scores.gather(-1, ids[0, 1:, None])[:, 0]
    return agrees((tiled - own).abs().mean(), own.abs().mean(), trainer.model.dtype)


def _probe_pairs(texts: list[list[int]]) -> list[dict[str, Any]]:
    """Pairs of unlike lengths; the first two have their prompt in common."""
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
    pairs = [
        {"prompt_ids": halves[max(number - 1, 0)][0], "chosen_ids": left[1], "rejected_ids": other[1]}
        for number, (left, other) in enumerate(pairwise(halves))
    ]
    return [{**pair, "pair": number} for number, pair in enumerate(pairs)]


def _pairs_alone(trainer: Any, pairs: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """The log-probability of each answer (pairs x 2) after its prompt alone, and how far a leak moves them."""
    alone, leaks = [], []
    for pair in pairs:
        prompt, chosen, rejected = pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"]
        alone.append([_answer(trainer, prompt, chosen), _answer(trainer, prompt, rejected)])
        leaks.append(_answer(trainer, prompt + chosen, rejected) - alone[-1][1])
    return torch.tensor(alone), torch.tensor(leaks).square().mean().sqrt()


def _answer(trainer: Any, prompt: list[int], answer: list[int]) -> float:  # noqa: ANN401  one of our trainers
    logits = _forward(trainer, {"input_ids": torch.tensor([prompt + answer])})[0, len(prompt) - 1 : -1]
    scores = logits.log_softmax(-1).gather(-1, torch.tensor(answer, device=logits.device)[:, None])
    return float(scores.sum())


def _pair_error(
    trainer: RpoTrainer, collator: PairCollator, pairs: list[dict[str, Any]], alone: torch.Tensor, *, whole: bool
) -> torch.Tensor:
    """How far the log-probabilities of answers in a batch are from those of each alone: the root mean square."""
    batch = trainer._prepare_inputs(collator(pairs))
    before, trainer.whole = trainer.whole, whole
    try:
        chosen, rejected, *_ = trainer.answer_logps(trainer.model, batch)
    # A layout that a model cannot take fails in its own way, at any of its layers.
    except Exception:
        return torch.tensor(torch.inf)
    finally:
        trainer.whole = before
    return (torch.stack([chosen, rejected], 1).cpu() - alone).square().mean().sqrt()
