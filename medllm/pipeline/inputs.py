"""What a stage reads, resolved: every name of the recipe becomes a commit, a folder's content, or a stage's digest."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medllm.errors import HubError, RecipeError
from medllm.hub import Artifact, Hub, Input, Kind, digest_of_folder
from medllm.pipeline.content import NO_WEIGHTS, exam_digest
from medllm.recipe import Recipe, Use, uses
from medllm.recipe.reference import KINDS, Reference, Stage, parse_reference

FORGOTTEN = "forgotten"
"""The source of the rows that are withdrawn, for the stages that read texts and past exams."""
FORGOTTEN_FILE = "forgotten.jsonl"


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
        found: dict[str, Input] = {}
        for use in uses(self.recipe, stage):
            source = self._input(use, made)
            if source is not None:
                found[source.reference] = source
        if stage in ("corpus", "preferences") and (forgotten := self._forgotten()):
            found[FORGOTTEN] = forgotten
        return tuple(found.values())

    def _forgotten(self) -> Input | None:
        """Find the list of withdrawn rows, where the namespace has one."""
        key, repo_id = (FORGOTTEN, "dataset"), forgotten_repo(self.recipe.namespace)
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
        if use.source == "base":
            return parse_reference(self.recipe.base)
        own = self.recipe.exams.get(use.source)
        if use.wanted == "exam" or own:
            return parse_reference(own.source if own else catalogue_source(use))
        return parse_reference(use.source)

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


def _read_as(use: Use) -> str:
    """Name what a stage reads of a folder: questions to leave out, an exam to ask, or files of a kind."""
    if use.held_out:
        return "questions"
    return "exam" if use.wanted == "exam" or use.place.startswith("preferences.data") else use.wanted


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
