"""The certificate of a merge: what it needs, the measurement with one model in memory at a time, and the verdict."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.generation.engine.blockwise import BlockwiseModel, can_stream, streamed_bytes
from medllm.generation.parity import (
    NOTED,
    TEXT,
    TOKENS,
    Parity,
    WholeModel,
    agreement,
    effect,
    note,
    parity_questions,
    prompts_of,
)
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import TextTokens
from medllm.weights.merge import concatenate, refuse_together, share_lost_to_rounding
from medllm.weights.resources import bytes_in_memory, memory_free

NOTES = "certifying"
"""Folder, beside the merged weights, of each model's answers; needed only on the way."""
WORKING = 2e9
"""Memory beside the weights: keys and values of a few prompts, and the logits of one text."""


@dataclass(frozen=True)
class ParityLimits:
    """What a right merge keeps within, in one kind of number."""

    top1: float
    """Least share of positions with the same likeliest token."""
    divergence: float
    """Largest mean divergence, in nats."""


LIMITS = {
    "float32": ParityLimits(top1=0.999, divergence=1e-5),
    "float16": ParityLimits(top1=0.98, divergence=2e-3),
    "bfloat16": ParityLimits(top1=0.90, divergence=2e-2),
}
"""About ten times what right merges were measured to have (in bfloat16 at worst 97.9 % and 0.0021 nats, measured in
docs/benchmarks/run-smollm2-135m.md): the rest is for other models, whose logits may be less sure."""
SHARE = 0.25
"""How much of the adapter's own effect may be lost, where that is more than rounding."""


@dataclass(frozen=True)
class Certificate:
    """How to measure one merge."""

    base: Path
    adapters: list[Path]
    numbers: str
    questions: int
    say: Callable[[str], None]

    @property
    def in_4_bit(self) -> bool:
        """Whether an adapter was trained on the base in NF4; then it is compared there, too."""
        files = [folder / "facts.json" for folder in self.adapters]
        settings = [json.loads(path.read_text("utf-8")).get("settings", {}) for path in files if path.is_file()]
        return any(setting.get("quantization") == "nf4" for setting in settings)

    @property
    def whole(self) -> bool:
        """Whether one whole model fits into the memory that is free now."""
        return bytes_in_memory(Checkpoint(self.base), self.numbers) + WORKING <= memory_free()

    def check(self) -> None:
        """Report what the certificate needs, and refuse before any work what the machine has no memory for."""
        refuse_together([Adapter(folder) for folder in self.adapters])
        base, free = Checkpoint(self.base), memory_free()
        needed = bytes_in_memory(base, self.numbers) + WORKING
        if needed <= free:
            self.say(f"the certificate needs {needed / 1e9:.3g} GB of memory, for one model at a time")
            return
        block = streamed_bytes(base, self.numbers) + WORKING
        if block <= free and all(can_stream(base, Adapter(folder)) for folder in self.adapters):
            self.say(
                f"a whole model takes {needed / 1e9:.3g} GB of memory and {free / 1e9:.3g} GB are free: the "
                f"certificate reads block by block, in {block / 1e9:.3g} GB: {self._unmeasured()}"
            )
            return
        raise ModelError(
            "weights.certificate-memory",
            f"merge: the certificate needs {needed / 1e9:.3g} GB of memory for one model at a time, and "
            f"{free / 1e9:.3g} GB are free. Merge on a larger machine (`merge.run_on`), or set `parity_questions: 0` "
            "to merge without a certificate.",
        )

    def _unmeasured(self) -> str:
        """Name what a certificate that reads block by block leaves out."""
        four_bit = ", and the adapter on the 4-bit base is not measured" if self.in_4_bit else ""
        return f"no answers are compared{four_bit}"

    def disk_bytes(self, tokenizer: Any) -> int:  # noqa: ANN401  a PreTrainedTokenizerBase
        """Count the bytes that the notes take at most: of each question the prompt and an answer, for each model.

        An answer is read as text again, where a byte that is no character takes three.
        """
        words = TextTokens(tokenizer)
        prompts = prompts_of(*parity_questions(self.questions))
        lengths = [len(words.prompt(prompt.text)) + 3 * TOKENS for prompt in prompts]
        return (sum(lengths) * NOTED + len(lengths) * TEXT) * (2 if self.in_4_bit else 1)

    def measure(self, merged: Path) -> dict[str, Any]:
        """Let base and adapter speak, then the merged model; the figures, with the verdict on them.

        What was noted before an interruption is not asked again.
        """
        asked, examples = parity_questions(self.questions)
        prompts = prompts_of(asked, examples)
        adapter = self._together(merged)
        whole = self.whole
        firsts: dict[str, WholeModel | BlockwiseModel] = {"adapter": self._model(self.base, adapter, whole=whole)}
        if self.in_4_bit and whole:
            firsts["adapter on the 4-bit base"] = WholeModel(self.base, adapter, dtype=self.numbers, quantization="nf4")
        notes = {
            name: merged / NOTES / f"{name} {self.numbers} {self.questions}{'' if whole else ' read'}"
            for name in firsts
        }
        for name, first in firsts.items():
            self.say(f"certifying on {self.questions} questions: {name}")
            note(first, asked, prompts, notes[name])
            first.release()
        self.say(f"certifying on {self.questions} questions: the merged model")
        second = self._model(merged, None, whole=whole)
        agreements = {name: agreement(second, folder, asked, prompts) for name, folder in notes.items()}
        second.release()
        certificate: dict[str, Any] = {"questions": self.questions, "numbers": self.numbers}
        certificate |= {"read": "whole models" if whole else f"block by block: {self._unmeasured()}"}
        for name, parity in agreements.items():
            facts = parity.as_facts().items()
            certificate |= {f"{key.replace('_', ' ')} (merged against {name})": value for key, value in facts}
        changed = effect(notes["adapter"])
        if changed is not None:
            certificate["kl mean (base against adapter)"] = round(changed, 8)
        faults = judge(agreements["adapter"], self.numbers, changed)
        lost = share_lost_to_rounding(
            Checkpoint(self.base), [Adapter(adapter) for adapter in self.adapters], self.numbers
        )
        if lost is not None:
            certificate["share of the adapter's change lost to rounding"] = round(lost, 6)
            if faults and lost > SHARE:
                faults.append(
                    f"{lost:.0%} of the adapter's change are smaller than the steps of {self.numbers} and lost by "
                    "rounding: `dtype: float32` keeps them, and so does a longer training"
                )
        return {**certificate, "verdict": "failed" if faults else "passed", "faults": faults}

    def _model(self, folder: Path, adapter: Path | None, *, whole: bool) -> WholeModel | BlockwiseModel:
        if whole:
            return WholeModel(folder, adapter, dtype=self.numbers)
        return BlockwiseModel(folder, adapter, dtype=self.numbers)

    def _together(self, merged: Path) -> Path:
        """One adapter that does what all of them do, one above the other."""
        if len(self.adapters) == 1:
            return self.adapters[0]
        concatenate([Adapter(folder) for folder in self.adapters], merged / NOTES / "together")
        return merged / NOTES / "together"


def judge(parity: Parity, numbers: str, changed: float | None) -> list[str]:
    """What a right merge would not show; nothing when it is right.

    `changed` is the mean divergence between base and adapter: a merge that is as far from the adapter as a share of
    that has lost part of the adapter, however little the adapter does.
    """
    limits = LIMITS[numbers]
    faults = []
    # Written so that a figure that is no number is a fault as well.
    if not parity.top1_agreement >= limits.top1:
        faults.append(f"top-1 agreement {parity.top1_agreement:.3f}, and at least {limits.top1} is right in {numbers}")
    if not parity.kl_mean <= limits.divergence:
        faults.append(
            f"mean divergence {parity.kl_mean:.3g} nats, and at most {limits.divergence:g} is right in {numbers}"
        )
    if changed is not None and parity.kl_mean > max(SHARE * changed, limits.divergence / 10):
        faults.append(f"mean divergence {parity.kl_mean:.3g} nats, where the adapter's whole effect is {changed:.3g}")
    return faults
