"""What a recipe's runs left on this disk, which of it can go, and its removal."""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

from medllm.generation.answer_store import AnswerStore
from medllm.hub import Hub
from medllm.hub.artifact import Provenance
from medllm.pipeline.ablation import row_recipe
from medllm.pipeline.build import exclusive_lock, is_locked
from medllm.pipeline.plan import BuildPlan
from medllm.pipeline.progress import count_bytes
from medllm.recipe import Recipe, repo_id
from medllm.recipe.base import KINDS, Stage

_WORK = re.compile(r"(?P<stage>[a-z]+)-(?P<digest>[0-9a-f]{12})")

State = Literal[
    "pushed",
    "not-pushed",
    "unfinished",
    "in-use",
    "empty",
    "cache",
    "shell-cache",
    "shared-cache",
    "transfers",
    "other-recipe",
    "answers",
    "hub",
]

REASONS: dict[State, str] = {
    "pushed": "the Hub has it",
    "not-pushed": "made and not pushed yet: `medllm run` pushes it",
    "unfinished": "unfinished work, which `medllm run` resumes; --unfinished removes it",
    "in-use": "a run works there now",
    "empty": "nothing is left in it",
    "cache": "copies of the Hub's files, downloaded again when a run needs them",
    "shell-cache": "copies that shells of `medllm hub env` downloaded from this Hub",
    "transfers": "what huggingface_hub remembers of transfers, and logs, for all programs: delete it when none works",
    "hub": "the Hub itself: `medllm hub gc` frees what nothing in it needs",
    "shared-cache": "copies that all programs of huggingface_hub share: see `hf cache`",
    "answers": "replies of models, so that no question is asked twice, in any recipe; --answers removes them",
    "other-recipe": "work of another recipe: clean it with that recipe",
}


@dataclass(frozen=True)
class DiskPlace:
    """A folder on this disk that runs wrote, with its size and whether it can go."""

    path: Path
    size: int
    """Bytes of its files, without links."""
    state: State
    removable: bool

    @property
    def reason(self) -> str:
        """Why it can go or stays, in words."""
        return REASONS[self.state]


def list_places(
    plan: BuildPlan, hub: Hub, work: Path, *, unfinished: bool = False, answers: bool = False
) -> list[DiskPlace]:
    """List every folder below `work`, the Hub with its caches, and the store of replies, the largest first.

    An output can go when the Hub has it under its digest; unfinished work only with `unfinished`, replies only with
    `answers`. Nothing is changed.
    """
    recipes = {plan.recipe.name: plan.recipe} | {
        row.name: row for row in (row_recipe(plan.recipe, name) for name in plan.recipe.ablations)
    }
    places = []
    for folder in sorted(work.iterdir()) if work.is_dir() else ():
        if folder.name in recipes:
            for place in find_work(folder):
                places.append(_place(place, _state(place, recipes[folder.name], hub), unfinished))
        elif folder.is_dir() and any(map(_WORK.fullmatch, (path.name for path in folder.iterdir()))):
            places.append(_place(folder, "other-recipe", unfinished))
    if hub.cache.is_dir():
        shared = hub.cache.resolve() == Path(HF_HUB_CACHE).resolve()
        places.append(_place(hub.cache, "shared-cache" if shared else "cache", unfinished))
    store = AnswerStore.here().folder
    if store is not None and store.is_dir():
        places.append(DiskPlace(store, count_bytes([store]), "answers", answers))
    for path, state in _beside(hub):
        if path.is_dir() and (size := count_bytes([path])):
            places.append(DiskPlace(path, size, state, state == "shell-cache"))
    return sorted(places, key=lambda place: -place.size)


def _beside(hub: Hub) -> Iterator[tuple[Path, State]]:
    """Yield the folders that belong to no recipe: the Hub's own, its shells' cache, and the client's transfers."""
    yield Path(HF_HOME) / "xet", "transfers"
    folder = Path(hub.name)
    if (folder / "hub.sqlite").is_file():
        from medllm.localhub import Store

        yield folder, "hub"
        store = Store(folder)
        try:
            yield Path.home() / ".cache" / "medllm" / f"hub-{store.id}" / "hub", "shell-cache"
        finally:
            store.close()


def find_work(folder: Path) -> list[Path]:
    """List the folders in which runs of one recipe work, or worked."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if path.is_dir() and _WORK.fullmatch(path.name)]


def _place(path: Path, state: State, unfinished: bool) -> DiskPlace:
    removable = state in ("pushed", "empty", "cache") or (state == "unfinished" and unfinished)
    return DiskPlace(path, count_bytes([path]), state, removable)


def _state(place: Path, recipe: Recipe, hub: Hub) -> State:
    if is_locked(place):
        return "in-use"
    provenance = place / "made" / Provenance.FILE
    if provenance.is_file():
        stage: Stage = _WORK.fullmatch(place.name)["stage"]  # type: ignore[assignment,index]
        digest = Provenance.read(provenance.read_text("utf-8"), str(provenance)).digest
        return "pushed" if hub.find(repo_id(recipe, stage), KINDS[stage], digest) else "not-pushed"
    if (place / "made").exists():
        return "not-pushed"
    return "unfinished" if any(path.name != "lock" for path in place.iterdir()) else "empty"


def remove_places(places: Iterable[DiskPlace]) -> Iterator[DiskPlace]:
    """Remove the removable folders one by one, and yield each when it is gone.

    Raises:
        BusyError: A run took one of them meanwhile; it and what follows stay.
    """
    for place in places:
        if not place.removable:
            continue
        if place.state in ("cache", "shell-cache", "answers"):
            shutil.rmtree(place.path)
        else:
            with exclusive_lock(place.path, place.path.name):
                shutil.rmtree(place.path)
            if not any(place.path.parent.iterdir()):
                place.path.parent.rmdir()
        yield place
