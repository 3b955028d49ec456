"""Continued pretraining: TRL's SFTTrainer over rows of whole documents, of which none is cut and none sees another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from transformers.utils.generic import is_flash_attention_requested
from trl import SFTConfig, SFTTrainer

from medllm.errors import DataError
from medllm.exam.prompts import split_item, system_of
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.recipe.servers import for_prompt
from medllm.recipe.settings import Cpt, Sft
from medllm.training.callbacks import LAST_GOOD, StopOnNonFinite, TrainingLog, add_curves, watch_sharding
from medllm.training.checkpointing import Checkpoints
from medllm.training.data import read_table
from medllm.training.load import learning, set_up_adapters, set_up_optimizer, trainer_arguments
from medllm.training.reference import WHOLE_LOGITS, fuse_head, vocabulary_of
from medllm.training.targets import lora_config
from medllm.training.updates import SHARE, Epochs, Updates, add_evaluation
from medllm.weights.chat_template import ChatTemplate
from medllm.weights.load import TextTokens
from medllm.work_progress import WorkProgress, report_progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
ITEM = ("kind", "locator")
"""The columns of a corpus from which an exam item and its prompt are known."""


@dataclass(frozen=True)
class Talk:
    """How the exam items of a corpus become conversations."""

    chat: ChatTemplate
    system: str | None = None
    """The system message; that of the item's template when None."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of the chat template, for all prompts or by prompt."""

    def tokens(self, text: str, style: PromptStyle) -> list[int]:
        """Return an item, written out as a text, as the tokens of question and reply."""
        template, asked, answered = split_item(text, style)
        messages = [*system_of(template, self.system), {"role": "user", "content": asked}]
        values = for_prompt(self.values, style)
        return [*self.chat.prompt(messages, values=values), *self.chat.reply(messages, answered, values=values)]


@dataclass(frozen=True)
class TokenCounts:
    """The account of a corpus: what came in and what the rows hold."""

    documents: int
    tokens_in: int
    tokens_in_rows: int
    rows: int
    pieces: int
    """Documents after those longer than a row were continued in another one."""
    conversations: int | None = None
    """Exam items among the documents that are conversations; None where all documents are texts."""

    def __str__(self) -> str:
        talks = "" if self.conversations is None else f" ({self.conversations:,} conversations)"
        return (
            f"{self.documents:,} documents{talks}, {self.tokens_in:,} tokens in, {self.tokens_in_rows:,} tokens in "
            f"{self.rows:,} rows ({self.pieces:,} pieces)"
        )


def read_texts(folder: Path, cache: Path, *, items: bool = False) -> Dataset:
    """Read the `text` column of a corpus: its `corpus/` split where there is one, else every parquet or JSONL file.

    With `items` also the columns from which exam items are known, as JSON.

    The texts of such a split come in the order of their hashes: the names and the order of the source's files do not
    change a training.
    """
    mend = "Rename the column that holds the texts to `text`, or give the output of the corpus stage."
    if not (folder / "corpus").is_dir():
        return read_table(folder, cache, "text", ["text"], mend)
    texts = read_table(folder / "corpus", cache, "text", ["text"], mend, talks=ITEM if items else ())
    hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts["text"]]
    return texts.select(np.argsort(np.array(hashes, "S16"), kind="stable"))


def question_or_text(texts: Dataset) -> list[str]:
    """Name the group of each document that no evaluation divides: an exam item's question, else the text itself.

    An item that is written out in several ways is several documents of one question.
    """
    texts_of = texts["text"]
    if not set(ITEM) <= set(texts.column_names):
        return list(texts_of)
    places = [json.loads(locator or '""').rpartition(" ")[0] for locator in texts["locator"]]
    known = [style is not None for style in _styles(texts)]
    return [f"question {place}" if item else text for item, place, text in zip(known, places, texts_of, strict=True)]


def make_rows(
    texts: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, *, packing: bool, talk: Talk | None = None
) -> tuple[Dataset, TokenCounts]:
    """Tokenize, end each document with the end-of-text token, and fill rows of at most `max_length`.

    With `talk` an exam item is a conversation, and ends as its chat template ends a reply.
    """
    from trl import pack_dataset

    words = TextTokens(tokenizer)
    end, count = tokenizer.eos_token_id, len(texts)

    def encode(batch: dict[str, list[str]], numbers: list[int]) -> dict[str, list[list[int]]]:
        report_progress(WorkProgress("tokenizing", numbers[0], count, "documents"))
        prompts = [[*ids, end] for ids in words.prompts(batch["text"])]
        if talk is not None:
            for row, style in enumerate(_styles(batch)):
                if style is not None:
                    prompts[row] = talk.tokens(batch["text"][row], style)
        return {"input_ids": prompts}

    tokens = texts.map(encode, batched=True, with_indices=True, remove_columns=texts.column_names, desc="Tokenizing")
    report_progress(WorkProgress("tokenizing", count, count, "documents"), now=True)
    if packing:
        rows = pack_dataset(tokens, max_length, "bfd_split")
    else:
        rows = tokens.map(lambda batch: _cut(batch["input_ids"], max_length), batched=True, desc="Cutting")
    tally = TokenCounts(
        documents=len(tokens),
        tokens_in=_count(tokens, "input_ids"),
        tokens_in_rows=_count(rows, "input_ids"),
        rows=len(rows),
        pieces=_count(rows, "seq_lengths"),
        conversations=None if talk is None else sum(style is not None for style in _styles(texts)),
    )
    if tally.tokens_in != tally.tokens_in_rows:
        raise DataError(
            "training.packing-lost-text",
            f"packing lost text: {tally}. This is a bug of TRL's packing: please report it, or set `packing: false`.",
        )
    if not tally.rows:
        raise DataError(
            "training.no-rows", "the corpus holds no text. The facts.json of the stage that made it gives the reason."
        )
    return rows, tally


def _styles(table: Mapping[str, Sequence[str]] | Dataset) -> list[PromptStyle | None]:
    """Return the prompt of each document that is an exam item; None for other texts."""
    styles: list[PromptStyle | None] = []
    for kind, locator in zip(table["kind"], table["locator"], strict=True):
        written = json.loads(locator or '""').rpartition(" ")[2] if kind == json.dumps("exam") else ""
        styles.append(next((style for style in PROMPTS if style == written), None))
    return styles


def _count(table: Dataset, column: str) -> int:
    """Sum the lengths of a column's lists in Arrow, without making Python numbers of a whole corpus."""
    import pyarrow.compute as pc

    return int(pc.sum(pc.list_value_length(table.data.column(column))).as_py() or 0)


def _cut(documents: list[list[int]], max_length: int) -> dict[str, list[Any]]:
    pieces = [ids[at : at + max_length] for ids in documents for at in range(0, len(ids), max_length)]
    return {"input_ids": pieces, "seq_lengths": [[len(piece)] for piece in pieces]}


@dataclass(frozen=True)
class RowCollator:
    """Rows to a batch; positions restart with each document, from which the model builds its mask.

    Rows stay rows: laid end to end (as TRL's padding-free batches are) they need a mask of (rows x length) squared
    without a varlen attention kernel, which made a step nearly three times as long on a CPU. `flat` lays them end to
    end all the same, for the kernels that want it.
    """

    pad_token_id: int
    flat: bool = False

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pad, mark where documents begin, and leave each document's first token unpredicted.

        Of rows with `learnt`, a truth value for each token, the others are read and not predicted.
        """
        import torch

        if self.flat:
            joined = {key: [value for row in rows for value in row[key]] for key in rows[0] if key != SHARE}
            rows = [joined]
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_token_id)
        labels = torch.full((len(rows), width), IGNORED)
        positions = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[number, :length] = torch.tensor(row["input_ids"])
            labels[number, :length] = ids[number, :length]
            if "learnt" in row:
                labels[number, :length][~torch.tensor(row["learnt"], dtype=torch.bool)] = IGNORED
            begin = 0
            for piece in row["seq_lengths"]:
                positions[number, begin : begin + piece] = torch.arange(piece)
                labels[number, begin] = IGNORED
                begin += piece
            positions[number, length:] = torch.arange(width - length)
        batch: dict[str, Any] = {"input_ids": ids, "position_ids": positions, "labels": labels}
        return batch | (_ends(rows[0]["seq_lengths"]) if self.flat else {})


def _ends(lengths: list[int]) -> dict[str, Any]:
    """Where documents laid end to end begin and end, in the words of transformers' kernels for such rows.

    Without them transformers looks for jumps in the positions, and finds them only in a batch of one row.
    """
    import torch

    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


class RowTrainer(Updates, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with one way of computing the loss for the whole run, the same on every device."""

    def __init__(self, *, whole: bool, **kwargs: Any) -> None:  # noqa: ANN401  what SFTTrainer takes
        super().__init__(**kwargs)
        self.whole = whole
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # noqa: ANN401
        """The negative log-likelihood of the batch's predicted tokens, as its part of the mean over the update."""
        total, tokens = self._total(model, inputs)
        if num_items_in_batch is None:
            num_items_in_batch = tokens
        # It counts the tokens of every device, whose gradients are averaged afterwards. An update of documents of one
        # token each predicts nothing.
        loss = total / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def eval_sums(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:  # noqa: ANN401
        """The negative log-likelihood of a batch's predicted tokens, and how many these are."""
        total, tokens = self._total(model, inputs)
        return {"loss": total}, tokens

    def _total(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
        passed = {key: value for key, value in inputs.items() if key not in ("labels", SHARE)}
        labels = inputs["labels"]
        if self.whole:
            logits = model(**passed, use_cache=False).logits[:, :-1].float()
            total = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                labels[:, 1:].reshape(-1),
                ignore_index=IGNORED,
                reduction="sum",
            )
        else:
            total = -model(**passed, labels=labels, fused_lm_head=True).log_probs.sum()
        return total, (labels[:, 1:] != IGNORED).sum()


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: Cpt | Sft,
    work: Path,
    held_out: Dataset | None = None,
) -> RowTrainer:
    """Everything wired, ready to train or to go on; `held_out` are the rows of its evaluations."""
    common = trainer_arguments(settings, work, model, len(rows))
    arguments = SFTConfig(**common, packing=False, dataset_kwargs={"skip_prepare_dataset": True})
    continues = hasattr(model, "peft_config")
    fresh = lora_config(settings.lora, model) if settings.lora and not continues else None
    flat = is_flash_attention_requested(model.config)
    start = learning(model)
    at_once = settings.per_device_train_batch_size * settings.max_length * vocabulary_of(model)
    trainer = RowTrainer(
        whole=at_once <= WHOLE_LOGITS,
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=fresh,
        data_collator=RowCollator(tokenizer.pad_token_id, flat=flat),
    )
    set_up_adapters(trainer, start)
    set_up_optimizer(trainer, settings)
    fuse_head(trainer.model)
    watch_sharding(trainer)
    trainer.empty = {"input_ids": [tokenizer.pad_token_id], "seq_lengths": [1]}
    for prints in (PrinterCallback, ProgressCallback):  # what they print as dicts is in the log and the progress
        trainer.remove_callback(prints)
    trainer.add_callback(Epochs(trainer, settings.total_batch_size))
    trainer.add_callback(StopOnNonFinite(trainer, work / LAST_GOOD))
    trainer.add_callback(TrainingLog(work / "training" / "log.jsonl", trainer.is_world_process_zero()))
    add_curves(trainer, settings.report_to, work / "training" / "tensorboard")
    add_evaluation(trainer, settings, work)
    trainer.checkpoints = Checkpoints(trainer, settings.save_minutes)
    trainer.add_callback(trainer.checkpoints)
    return trainer
