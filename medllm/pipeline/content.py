"""Content digests: what later stages read of an output, and what a stage reads, resolved to commits and digests.

Times, machines, versions, commits and cards do not count, so a stage that is remade with equal content keeps its place.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medllm.errors import HubError, MedllmError, RecipeError
from medllm.hub import Artifact, Hub, Input, Kind, Provenance, digest_of_folder
from medllm.preflight.inspect import adapter_bases, folder_config
from medllm.recipe import Recipe, Use, uses
from medllm.recipe.base import KINDS, Reference, Stage, parse_reference
from medllm.recipe.data import DataSource
from medllm.recipe.dependencies import source_text
from medllm.weights.checkpoint import read_json

CARDS = (".gitattributes", "README.md", Provenance.FILE)
"""Files that the pipeline or the Hub adds to an output."""
TABLES = ("instructions/*", "dropped/*", "audit/*", "questions/*", "rollouts/*")
"""The lists of what a training has read, and of what its model wrote in it."""
RECORDS = (*CARDS, "facts.json", "certificate.json", "training/*", "audit.html", "audit.json", *TABLES)
"""Those, and what a stage of weights records of its work: times, memory, curves."""
OF_ROUNDS = ("rounds.parquet", "pairs/*", "samples/*", "audit/*", "records/*", "kept_back/*")
"""What `rounds` writes beside the model it hands on: how it came about."""
PAIR = ("prompt", "prompt_without_shots", "chosen", "rejected")
"""The columns of a preference pair that a training reads."""
CONVERSATION = ("messages", "date", "license", "question_hash", "explanation", "answer", "teacher", "teacher_cutoff")
"""The columns of a teacher's explanation that later stages read."""
NO_QUESTIONS = ("exemplars.jsonl", "prompts/*", "*.md", "*.txt", "LICENSE*", "LICENCE*", "NOTICE*")
"""Files of an exam's folder that hold no question of it: a stage that only leaves its questions out reads none."""
NO_WEIGHTS = ("*.md", "LICENSE*", "LICENCE*", "NOTICE*", "*.png", "*.jpg", "*.svg", "*.pdf")
"""Files of a model's folder that loading never reads."""
ASKED = ("question_id", "text", "choices", "key", "exam_date", "year", "context", "vignette_text", "vignette_id")
"""The columns of a question that decide whether a text contains it."""


def content_of(stage: Stage, out: Path) -> str:
    """Hash what later stages read of an output: `sha256:` and 64 letters.

    Of a corpus that is its texts in any order (a training sorts them), of preferences the pairs in order, of a teacher
    its conversations in order, of the other stages the bytes of their files.
    """
    if stage == "corpus":
        return _digest([_texts(out / "corpus")])
    if stage == "teach":
        return _digest(_rows_with(out / "data", CONVERSATION))
    if stage == "preferences":
        return _digest([*_rows_with(out / "data", PAIR), _round(out)])
    if stage in ("cpt", "sft", "rpo", "rounds", "grpo", "merge"):
        return _digest([digest_of_folder(out, without=(*RECORDS, *OF_ROUNDS)), _round(out)])
    return _digest([digest_of_folder(out, without=CARDS)])


def equal_version(hub: Hub, repo_id: str, kind: Kind, provenance: Provenance) -> Provenance | None:
    """Find another version of a repository that has the same content; the one on main is preferred."""
    head = hub.state_at(repo_id, kind)
    if head is None:
        return None
    for state in (head, *hub.versions(repo_id, kind)):
        other = state.provenance
        if other and other.content == provenance.content is not None and other.digest != provenance.digest:
            return other
    return None


def exam_digest(recipe: Recipe, use: Use, folder: Path) -> str:
    """Hash what one stage reads of an exam in a folder; an exam that cannot be read counts by its files.

    A stage that holds it out reads the questions and their translations in any order, `evaluate` all of each question
    and as many worked examples as it shows.
    """
    try:
        return _digest(_read_exam(recipe, use, folder))
    except (MedllmError, OSError, ValueError):
        return digest_of_folder(folder, without=NO_QUESTIONS if use.held_out else ())


def _read_exam(recipe: Recipe, use: Use, folder: Path) -> Iterator[bytes | str]:
    from medllm.exam.benchmarks import exemplars, load, translations

    name = _reader(recipe, use, folder)
    rows = [question.to_row() for question in load(name, folder) if _is_read(recipe, use, question.year)]
    if use.held_out:
        shown = [_line({key: value for key, value in row.items() if key in _columns()}) for row in rows]
        yield from sorted(shown)
        yield from sorted(
            _line([translation.question_id, translation.text, *translation.choices])
            for translation in translations(name, folder)
        )
        return
    yield from map(_line, rows)
    asking = recipe.rounds.evaluate if use.place == "rounds.exam" and recipe.rounds else recipe.evaluate
    shots = asking.shots if asking and use.wanted == "exam" else 0
    count = shots if isinstance(shots, int) else shots.get(name, 0)
    if count:
        yield from (_line(exemplar.to_row()) for exemplar in exemplars(name, folder)[:count])
        yield from sorted(
            _line([translation.question_id, translation.text, *translation.choices])
            for translation in translations(name, folder)
        )


def _is_read(recipe: Recipe, use: Use, year: int | None) -> bool:
    """Return whether a stage reads the questions of a year: of a file that is past and held out, each reads its own."""
    if use.wanted == "exam":
        exam = recipe.exams.get(use.source)
        years = exam.years if exam else None
        return not years or year in years or (year is None and use.held_out)
    stated = {source.source: source.years for source in _listed(recipe, use.place)}
    years = stated.get(use.source)
    return not years or year in years


def _listed(recipe: Recipe, place: str) -> tuple[DataSource, ...]:
    """Return the sources of the block to which a key belongs."""
    if recipe.rounds and place.startswith("rounds."):
        return recipe.rounds.preferences.data
    blocks = {"corpus": recipe.corpus, "teach": recipe.teach, "preferences": recipe.preferences, "grpo": recipe.grpo}
    stage = blocks[place.partition(".")[0]]
    return stage.data if stage else ()


def _columns() -> set[str]:
    from medllm.exam.question import PUBLISHED

    return {PUBLISHED.get(name, name) for name in ASKED}


def _reader(recipe: Recipe, use: Use, folder: Path) -> str:
    """Name an exam as the stage that reads it does."""
    from medllm.exam.benchmarks import name_of_past_exam

    if use.wanted == "exam":
        return use.source
    stated = _listed(recipe, use.place) if not use.place.startswith("corpus.") else ()
    named = next((source.exam for source in stated if source.source == use.source and source.exam), None)
    return name_of_past_exam(named, use.source, folder)


def _texts(folder: Path) -> bytes:
    """Hash the texts of a corpus as a set with counts, in 16 bytes of memory for each."""
    import pyarrow.parquet as pq

    texts = [
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
        for path in sorted(folder.glob("*.parquet"))
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["text"])
        for text in batch.column(0).to_pylist()
    ]
    return np.sort(np.array(texts, "V16").view("S16").ravel() if texts else np.empty(0, "S16")).tobytes()


def _rows_with(folder: Path, columns_read: tuple[str, ...]) -> Iterator[str]:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        columns = [name for name in columns_read if name in pq.read_schema(path).names]
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=columns):
            yield from map(_line, batch.to_pylist())


def _round(out: Path) -> str:
    """The round of sampling, which the next round reads from the facts."""
    path = out / "facts.json"
    return str(json.loads(path.read_text("utf-8")).get("round")) if path.is_file() else ""


def _line(value: Any) -> str:  # noqa: ANN401  any row
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _digest(parts: Iterable[bytes | str]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return f"sha256:{whole.hexdigest()}"


FORGOTTEN = "forgotten"
"""The source of the rows that are withdrawn, for the stages that read texts and past exams."""
FORGOTTEN_FILE = "forgotten.jsonl"


def _reads_texts(recipe: Recipe, stage: Stage) -> bool:
    """Return whether a stage reads texts or past exams themselves, from which withdrawn rows are left out."""
    mixes = stage == "rpo" and recipe.rpo is not None and recipe.rpo.mix is not None
    return mixes or stage in ("corpus", "teach", "sft", "preferences", "rounds", "grpo")


def forgotten_repo(namespace: str) -> str:
    """Name the dataset that lists the withdrawn rows of a namespace."""
    return f"{namespace}/medllm-forgotten"


@dataclass
class Resolver:
    """Resolves each name once: two stages that read one source read the same commit, even while a tag moves."""

    recipe: Recipe
    hub: Hub
    _seen: dict[tuple[str, str], Input] = field(default_factory=dict)

    def for_recipe(self, recipe: Recipe) -> "Resolver":
        """The same commits for another recipe, such as one row of the ablation table."""
        return Resolver(recipe, self.hub, self._seen)

    def inputs(self, stage: Stage, made: Mapping[Stage, Input]) -> tuple[Input, ...]:
        """All sources of a stage; `made` holds the stages above it."""
        resolved: dict[str, Input] = {}
        for use in uses(self.recipe, stage):
            source = self._input(use, made)
            if source is not None:
                resolved[source.reference] = source
        if _reads_texts(self.recipe, stage) and (forgotten := self._forgotten()):
            resolved[FORGOTTEN] = forgotten
        return tuple(resolved.values())

    def _forgotten(self) -> Input | None:
        """Find the list of withdrawn rows, where the namespace has one."""
        key, repo_id = (FORGOTTEN, "dataset"), forgotten_repo(self.recipe.owner)
        if key not in self._seen:
            state = self.hub.state_at(repo_id, "dataset")
            commit = state.artifact.revision if state and FORGOTTEN_FILE in state.files else None
            self._seen[key] = Input(FORGOTTEN, "dataset", repo_id, commit)
        return self._seen[key] if self._seen[key].commit else None

    def _input(self, use: Use, made: Mapping[Stage, Input]) -> Input | None:
        written = self.place_of(use)
        if written.where == "api":
            return None  # a model behind an address is asked, not pulled
        if written.where == "stage":
            return made[written.text]  # type: ignore[index]  # `where` shows that it is a Stage
        kind: Kind = "model" if use.wanted == "model" else "dataset"
        key = (written.text, _read_as(use) if written.where == "folder" else kind)
        if key not in self._seen:
            self._seen[key] = self._outside(use, written, kind)
        return replace(self._seen[key], reference=use.source)

    def place_of(self, use: Use) -> Reference:
        """Find where a source is: `base` and exams are names for what another line of the recipe states."""
        if use.wanted == "exam" and use.source not in self.recipe.exams:
            return parse_reference(catalogue_source(use))
        return parse_reference(source_text(self.recipe, use))

    def _outside(self, use: Use, written: Reference, kind: Kind) -> Input:
        if written.where == "folder":
            folder = self.folder(written)
            if not folder.exists():
                command = self.recipe.prepared_by
                mend = f"Run `{command}`, which writes it." if command else "Create it, or correct the path."
                text = f"{use.place}: folder {written.text} not found (looked in {self.recipe.folder}). {mend}"
                raise RecipeError("recipe.no-such-folder", text)
            return Input(use.source, digest=self._digest(use, folder))
        if written.where != "hub" or written.repo_id is None:
            text = f"{use.place}: Unknown source `{written.text}`. Write `ORG/NAME@REVISION` or `./folder`."
            raise RecipeError("recipe.unknown-source", text)
        try:
            artifact, at_source = self.hub.resolve_source(written.repo_id, kind, written.revision or "main")
        except HubError as fault:
            raise HubError(fault.code, f"{use.place}: {fault}") from fault
        # A mirror is the same source as what it mirrors: its identity is the commit there.
        digest = f"{artifact.repo_id}@{at_source}" if at_source else None
        return Input(use.source, kind, artifact.repo_id, artifact.revision, digest)

    def _digest(self, use: Use, folder: Path) -> str:
        """Hash what the stage reads of a folder."""
        if _read_as(use) in ("questions", "exam"):
            return exam_digest(self.recipe, use, folder)
        return digest_of_folder(folder, without=NO_WEIGHTS if use.wanted == "model" else ())

    def folder(self, written: Reference) -> Path:
        """A local source, relative to the recipe's own file."""
        return (self.recipe.folder / written.text).resolve()

    def pulled(self, stage: Stage, inputs: tuple[Input, ...], *, standing_only: bool = False) -> dict[str, Path]:
        """Pull each source to a local folder, keyed as the recipe writes it; with `standing_only`, those that exist."""
        by_name = {source.reference: source for source in inputs}
        folders: dict[str, Path] = {}
        if (listed := by_name.get(FORGOTTEN)) and listed.repo_id and listed.commit:
            folders[FORGOTTEN] = self.hub.pull(Artifact(listed.repo_id, "dataset", listed.commit))
        for use in uses(self.recipe, stage):
            written = self.place_of(use)
            source = by_name.get(written.text if written.where == "stage" else use.source)
            if source is None:
                continue
            if standing_only and source.repo_id and not source.commit:
                continue
            if source.repo_id and source.kind and source.commit:
                folders[use.source] = self.hub.pull(Artifact(source.repo_id, source.kind, source.commit), use.only)
            else:
                folders[use.source] = self.folder(written)
        return folders


def with_named_bases(recipe: Recipe, hub: Hub) -> Recipe:
    """Return a recipe with the bases that the adapters of its evaluation name, where it states no base itself."""

    def config_of(use: Use) -> Mapping[str, Any] | None:
        place = parse_reference(use.source)
        if place.where != "hub" or place.repo_id is None:
            return folder_config(recipe, use)
        try:
            artifact, _ = hub.resolve_source(place.repo_id, "model", place.revision or "main")
            path = hub.file(artifact, "adapter_config.json")
        except HubError as fault:
            raise HubError(fault.code, f"{use.place}: {fault}") from fault
        return None if path is None else read_json(path)

    return recipe.with_adapter_bases(adapter_bases(recipe, config_of))


def _read_as(use: Use) -> str:
    """Name what a stage reads of a folder: questions to leave out, an exam to ask, or files of a kind."""
    if use.held_out:
        return "questions"
    past = use.place.removeprefix("rounds.").startswith(("teach.data", "preferences.data", "grpo.data"))
    return "exam" if use.wanted == "exam" or past else use.wanted


def catalogue_source(use: Use) -> str:
    """Find the place of an exam in the catalogue."""
    from medllm.exam.benchmarks import CATALOGUE

    exam = CATALOGUE[use.source]
    if exam.hub is None:
        raise RecipeError(
            "recipe.exam-not-on-hub",
            f"{use.place}: `{use.source}` is not on the Hub; its authors publish it at {exam.source}. Download it "
            f"and name its folder: `exams: {{{use.source}: ./folder}}`.",
        )
    return f"{exam.hub}@{exam.revision or 'main'}"


def stage_input(stage: Stage, repo_id: str, identity: str, commit: str | None) -> Input:
    """A stage as the source of a later one."""
    return Input(stage, KINDS[stage], repo_id, commit, identity)
