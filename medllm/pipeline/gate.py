"""The gate before a push: the least that an output holds, its licences, and the conditions for a public one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medllm.errors import DataError, MedllmError, ModelError
from medllm.localhub.validation import hub_word, license_name
from medllm.recipe import Recipe
from medllm.recipe.base import Stage
from medllm.recipe.dependencies import askings_of

SHARE_ALIKE = re.compile(r"-sa\b|-sa-|^(a?gpl|gfdl)")
OWN_TERMS = re.compile(r"^(llama|gemma|qwen|deepseek|other|.*-community|.*-research)")
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "unlicense")


def front_matter(readme: Path) -> dict[str, Any]:
    """The header of a card, or nothing when there is no readable one."""
    if not readme.is_file():
        return {}
    match = re.match(r"---\r?\n(.*?)\r?\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def license_of(readme: Path) -> str | None:
    """The licence a card states, by its name where it is one of its owner's own; several are joined by commas."""
    header = front_matter(readme)
    stated = header.get("license")
    words = [
        str(license_).strip().lower() for license_ in (stated if isinstance(stated, list) else [stated]) if license_
    ]
    named = header.get("license_name")
    if words == ["other"] and isinstance(named, str) and named.strip():
        words = [named.strip().lower()]
    return ", ".join(words) or None


def link_of(readme: Path, repo_id: str | None) -> str | None:
    """Find the text of the licence that a card states: its link, made absolute, or the repository of the card."""
    link = front_matter(readme).get("license_link")
    if isinstance(link, str) and re.match(r"https?://", link):
        return link
    if repo_id is None:
        return None
    file = link.strip("./ ") if isinstance(link, str) else ""
    return f"https://huggingface.co/{repo_id}" + (f"/blob/main/{file}" if file else "")


def chosen(declared: str | None, base: str | None) -> str:
    """The Hub's word for the licence of what is made: as declared, else the base's, whose terms reach every model.

    A card with a word that the Hub does not know is refused there: own terms are `other`, named by `terms_for`.

    >>> chosen(None, "qwen"), chosen(None, "apache-2.0"), chosen("MIT", "gemma")
    ('other', 'apache-2.0', 'mit')
    """
    return hub_word(declared or base)


def terms_for(declared: str | None, base: str | None, link: str | None) -> dict[str, str | None]:
    """List the licence fields of a card: the Hub's word and, for terms that have none, their name and link."""
    word = chosen(declared, base)
    if word != "other":
        return {"license": word, "license_name": None, "license_link": None}
    own = declared is None or declared.lower() == base
    return {"license": word, "license_name": license_name(declared or base), "license_link": link if own else None}


def conflicts(license: str, base: str | None, data: dict[str, str | None]) -> list[str]:
    """Name what does not go together; `data` maps each source to its licence, None where it states none.

    >>> conflicts("apache-2.0", "apache-2.0", {"org/texts": "cc-by-nc-4.0"})
    ['org/texts is cc-by-nc-4.0, which forbids commercial use; apache-2.0 allows it']
    """
    reasons = []
    if base is None:
        reasons.append("the base states no licence")
    elif OWN_TERMS.match(base) and license.lower() != base:
        reasons.append(f"the base is under {base}, whose terms reach every model made from it; this one is {license}")
    for name, terms in sorted({"the base": base, **data}.items()):
        if terms is None:
            if name != "the base":
                reasons.append(f"{name} states no licence")
            continue
        if "-nc" in terms and "-nc" not in license:
            reasons.append(f"{name} is {terms}, which forbids commercial use; {license} allows it")
        if "-nd" in terms:
            reasons.append(f"{name} is {terms}, which forbids derived works")
        if SHARE_ALIKE.search(terms) and license in PERMISSIVE:
            reasons.append(f"{name} is {terms}, which asks for the same terms; {license} is laxer")
    return reasons


Facts = dict[str, Any]


def refuse_empty(stage: Stage, out: Path) -> None:
    """Raise where an output is not worth publishing; the folder stays for a look, and the Hub stays as it was."""
    check = CHECKS.get(stage)
    if check is not None:
        check(out, json.loads((out / "facts.json").read_text(encoding="utf-8")))


def _rows(out: Path, pattern: str) -> int:
    """Count the rows of Parquet files by their footers; a broken file is an error that names it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    for path in sorted(out.glob(pattern)):
        try:
            count += int(pq.read_metadata(path).num_rows)
        except (pa.ArrowInvalid, OSError) as fault:
            raise DataError("stage.broken-table", f"{path}: is not a whole Parquet file ({fault}).") from fault
    return count


def _needs_rows(stage: Stage, pattern: str, what: str) -> Callable[[Path, Facts], None]:
    def check(out: Path, facts: Facts) -> None:
        if not _rows(out, pattern):
            raise MedllmError(
                "stage.empty-output",
                f"{stage}: the output in {out} holds no {what} ({pattern}), so it is not pushed. Nothing on the Hub "
                "was changed. See why the stage found none, remove that folder and run again.",
            )

    return check


def _check_adapter(out: Path, facts: Facts) -> None:
    """An adapter is whole and was trained: its factors B begin as zero, and training changes them.

    A full model, from full fine-tuning, can be loaded.
    """
    if facts.get("method") == "full fine-tuning":
        _check_model(out, facts)
        return
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import read_bytes

    adapter = Adapter(out)
    changed = any(any(read_bytes(adapter.path, wide)) for _, wide in adapter.modules.values())
    if not (changed or adapter.rows or adapter.replaced):
        raise ModelError(
            "stage.untrained-adapter",
            f"{out}: every change in the adapter is zero, so it is the base itself and is not pushed. Train for more "
            "steps, or with a higher learning_rate (the first update of a warm-up has none: see `warmup_ratio`).",
        )


def _check_model(out: Path, facts: Facts) -> None:
    """A merged model can be loaded, by the function that loading uses."""
    from medllm.weights.loadable import model_errors

    for error in model_errors(out):
        raise error


def _check_results(out: Path, facts: Facts) -> None:
    """Each model of an evaluation has at least one record."""
    _needs_rows("evaluate", "records/*.parquet", "answer")(out, facts)
    empty = [path.stem for path in sorted(out.glob("records/*.parquet")) if not _rows(path.parent, path.name)]
    if empty:
        raise MedllmError(
            "stage.empty-output",
            f"evaluate: {out} has no answers of {', '.join(empty)}, so it is not pushed. Remove that folder.",
        )


CHECKS: dict[Stage, Callable[[Path, Facts], None]] = {
    "corpus": _needs_rows("corpus", "corpus/*.parquet", "document"),
    "cpt": _check_adapter,
    "teach": _needs_rows("teach", "data/*.parquet", "explanation"),
    "sft": _check_adapter,
    "preferences": _needs_rows("preferences", "data/*.parquet", "pair"),
    "rpo": _check_adapter,
    "rounds": _check_adapter,
    "grpo": _check_adapter,
    "merge": _check_model,
    "evaluate": _check_results,
    "space": _needs_rows("space", "results/records/*.parquet", "answer"),
}
"""One check for each stage."""


def failed_gate_conditions(
    recipe: Recipe,
    facts: Mapping[str, Mapping[str, Any]],
    worst_delta: float | None,
    teachers: Sequence[str] = (),
) -> list[str]:
    """Every condition that does not hold; `facts` by stage, `worst_delta` the far end of the final model's interval.

    `teachers` has a sentence for each teacher that may know an exam that is asked. A condition that was not measured
    does not hold: a missing audit is not an audit without findings.
    """
    closed = [*_audit(recipe, facts), *_personal(recipe, facts), *_drop(recipe, worst_delta)]
    if recipe.gate.teacher_cutoff == "refuse":
        closed += [
            f"gate.teacher_cutoff: {sentence}. Take an older teacher, or ask later exams" for sentence in teachers
        ]
    return closed


def _audit(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not recipe.gate.audit:
        return
    yield from _audit_of_instructions(recipe, facts)
    if recipe.corpus is None:
        return
    open_findings = facts.get("corpus", {}).get("audit", {}).get("unreviewed")
    if open_findings is None:
        yield "gate.audit: the corpus has no leakage audit. Run the stage `corpus` with held_out"
    elif open_findings:
        yield (
            f"gate.audit: {open_findings} matches of the leakage audit need a person's review. Read audit.html in the "
            "corpus, and list those that are not leaks under corpus.leaks_reviewed"
        )
    for place, _ in askings_of(recipe):
        stage, kinds = place.partition(".")[0], {"teach": "explanations", "grpo": "questions"}
        what = kinds.get(stage, "pairs")
        waiting = facts.get(stage, {}).get("audit", {}).get("unreviewed")
        if waiting is None:
            yield f"gate.audit: the {what} of `{stage}` have no leakage audit. Run that stage with held_out"
        elif waiting:
            yield (
                f"gate.audit: {waiting} matches of the leakage audit in the {what} of `{stage}` need a person's review."
                f" Read `audit` there, and list those that are not leaks under {place}.leaks_reviewed"
            )


def _audit_of_instructions(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for place, own in _instructions(recipe, facts).items():
        waiting = own.get("audit", {}).get("unreviewed")
        if waiting is None:
            yield f"gate.audit: the conversations of `{place}` have no leakage audit. Run that stage with held_out"
        elif waiting:
            yield (
                f"gate.audit: {waiting} matches of the leakage audit in the conversations of `{place}` need a person's "
                f"review. Read audit.html there, and list those that are not leaks under {place}.leaks_reviewed"
            )


def _instructions(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the facts of the conversations that a recipe learns from, by the block that names them."""
    own: dict[str, Mapping[str, Any]] = {"sft": facts.get("sft", {})} if recipe.sft else {}
    if recipe.rpo and recipe.rpo.mix:
        own["rpo.mix"] = facts.get("rpo", {}).get("mix", {})
    return own


def _personal(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not recipe.gate.personal_data:
        return
    for place, own in _instructions(recipe, facts).items():
        if standing := own.get("personal_data", {}).get("standing"):
            yield (
                f"gate.personal_data: {standing} places in the conversations of `{place}` seem to name a patient. Set "
                f"{place}.personal_data: drop"
            )
    if recipe.corpus is None:
        return
    kept = facts.get("corpus", {}).get("personal_data", {}).get("standing")
    if kept is None:
        yield "gate.personal_data: the corpus does not record whether it holds documents with personal data"
    elif kept:
        yield f"gate.personal_data: {kept} places in the corpus seem to name a patient. Set personal_data: drop"


def _drop(recipe: Recipe, worst_delta: float | None) -> Iterator[str]:
    allowed = recipe.gate.max_drop
    if allowed is None:
        return
    if worst_delta is None:
        yield (
            "gate.max_drop: the final model did not answer every exam both plainly and explained, so its drop is "
            "unknown. Add `evaluate` with both prompts"
        )
    elif -worst_delta > allowed:
        yield (
            f"gate.max_drop: at the far end of its interval the final model loses {-100 * worst_delta:.1f} points "
            f"when it explains; {100 * allowed:.1f} are allowed. Ask more questions, or raise gate.max_drop"
        )
