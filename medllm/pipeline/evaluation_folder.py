"""An evaluation whose results are a folder: the same preflight, stage and provenance, and nothing is pushed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from medllm.errors import HubError, MedllmError, RecipeError
from medllm.files import replace_folder
from medllm.hub import Artifact, Hub, Provenance, RepoState, digest_of
from medllm.pipeline.build import BuildContext, Maker, disk_full_named, exclusive_lock, provenance_of
from medllm.pipeline.content import Resolver, with_named_bases
from medllm.pipeline.gate import refuse_empty
from medllm.pipeline.plan import BuildPlan, StagePlan, describe_change
from medllm.pipeline.preflight import check_before_work
from medllm.pipeline.progress import report_pull, report_work
from medllm.pipeline.results import extends
from medllm.recipe import Recipe, settings_for_digest


@dataclass(frozen=True)
class FolderPlan:
    """An evaluation that is to be made in a folder, and what is there now."""

    plan: BuildPlan
    out: Path
    finished: bool
    """Whether the folder holds exactly this evaluation."""

    @property
    def item(self) -> StagePlan:
        """Return the plan's one stage."""
        return self.plan.items[0]

    def sources(self) -> dict[str, Path]:
        """Pull what is read, to local folders by the names of the recipe."""
        return self.plan.resolver.pulled("evaluate", self.item.inputs)


def plan_folder(recipe: Recipe, hub: Hub, work: Path, out: Path | None = None) -> FolderPlan:
    """Resolve what is asked, and find the folder of its results: `out`, else one in `work` named by all that decides.

    `hub` is only read.

    Raises:
        RecipeError: The recipe has other stages, or none.
        MedllmError: `out` holds something else that this evaluation does not extend.
    """
    if recipe.evaluate is None or recipe.namespace is not None:
        raise RecipeError(
            "recipe.not-a-folder",
            f"{recipe.path}: only a recipe with `evaluate` and without `namespace` has a folder as its result.",
        )
    settings, recipe = recipe.evaluate, with_named_bases(recipe, hub)
    resolver = Resolver(recipe, hub)
    inputs = resolver.inputs("evaluate", {})
    values = settings_for_digest(settings)
    digest = digest_of("evaluate", values, inputs)
    out = out or work / f"{recipe.name}-{digest[:12]}"
    before = _made_there(out)
    head = RepoState(Artifact(str(out), "dataset", before.digest), before, frozenset()) if before else None
    why = describe_change(head, values, inputs)
    item = StagePlan("evaluate", settings, str(out), "dataset", inputs, digest, None, head, why)
    finished = before is not None and before.digest == digest
    if before is not None and not finished and not extends(item):
        raise MedllmError(
            "command.other-evaluation",
            f"{out}: holds another evaluation ({why}). Name another folder with --out, or remove this one; what was "
            "asked is kept and not asked again.",
        )
    return FolderPlan(BuildPlan(recipe, (item,), resolver), out, finished)


def _made_there(out: Path) -> Provenance | None:
    """Read the provenance of the evaluation in a folder; None where the folder is absent or empty."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    path = out / Provenance.FILE
    try:
        provenance = Provenance.read(path.read_text("utf-8"), str(out))
    except (OSError, UnicodeDecodeError, HubError):
        provenance = None
    if provenance is None or provenance.stage != "evaluate":
        raise MedllmError(
            "command.folder-taken",
            f"{out}: is not empty and holds no evaluation of medllm. Name another folder with --out.",
        )
    return provenance


def make_folder(planned: FolderPlan, bench: BuildContext, maker: Maker) -> Path:
    """Ask what is missing and return the folder of the results; called again after an interruption, go on.

    The folder appears when it is whole; until then the work is in `OUT.unfinished-DIGEST` beside it.
    """
    item, out = planned.item, planned.out
    if planned.finished:
        bench.say(f"evaluate: {out} holds exactly this")
        return out
    check_before_work([planned.plan], bench.hub, bench.work, here=True)
    place = out.with_name(f"{out.name}.unfinished-{item.digest[:12]}")
    with disk_full_named(item, place), exclusive_lock(place, str(out)):
        made = place / "made"
        if not made.exists():
            _work(planned, place, bench, maker)
        refuse_empty("evaluate", made)
        provenance_of(planned.plan, item, item.inputs, None).write(made)
        replace_folder(made, out)
        shutil.rmtree(place)
    return out


def _work(planned: FolderPlan, place: Path, bench: BuildContext, maker: Maker) -> None:
    item, out = planned.item, place / "making"
    if out.exists():  # not moved to `made`, so it may be incomplete; the replies are in its .part
        shutil.rmtree(out)
    shelves = {
        bench.hub.cache_folder(source.repo_id, source.kind) for source in item.inputs if source.repo_id and source.kind
    }
    with report_pull(item, shelves, bench.progress):
        sources = planned.sources()
    with report_work(item, place, bench.progress):
        maker(item.settings, sources, out)
    out.replace(place / "made")
