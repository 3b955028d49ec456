"""Killed without warning at any moment and run again, a run ends in the same artifacts, and nothing is doubled."""

import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from medllm.hub import connect, digest_of_folder
from tests.pipeline import toy

SEED = 7
STAGES = ("corpus", "cpt", "preferences", "rpo", "merge", "evaluate")
MOMENTS = ("not made yet", "at work", "pushing", "exists as")
"""Words of a run after which it is killed, once in each stage; how long after is drawn."""


PROCESSES = multiprocessing.get_context("forkserver")  # one process that has imported everything, and is never killed
PROCESSES.set_forkserver_preload(["medllm.hub", "medllm.localhub", "medllm.pipeline", "tests.pipeline.toy"])


def killed_after(word: str, folder: Path, delay: float) -> bool:
    """Run until the word is said and kill a moment later; False when the run was done before."""
    ear, mouth = PROCESSES.Pipe(duplex=False)
    run = PROCESSES.Process(target=toy.main, args=(folder, mouth.send))
    run.start()
    mouth.close()
    try:
        while not ear.recv().startswith(word):
            pass
        time.sleep(delay)
        run.kill()
    except EOFError:
        pass
    finally:
        ear.close()
    run.join()
    assert run.exitcode in (0, -signal.SIGKILL)
    return run.exitcode == -signal.SIGKILL


def stood(folder: Path) -> dict[str, tuple[str, int, int, list[str]]]:
    """For each repository: its content without what tells the time, its commits, tags and branches."""
    found = {}
    with connect(str(folder / "hub"), "clinic") as hub:
        for repo_id, kind in hub.repositories("clinic"):
            (standing,) = hub.versions(repo_id, kind)
            copy = folder / "pulled" / repo_id
            shutil.copytree(hub.pull(standing.artifact), copy)
            (copy / "provenance.json").unlink()
            (copy / "README.md").unlink(missing_ok=True)
            commits = len(hub.api.list_repo_commits(repo_id, repo_type=kind))
            refs = hub.refs(repo_id, kind)
            made = f"{standing.provenance.digest} {digest_of_folder(copy)}"
            found[repo_id] = (made, commits, len(refs.tags), [branch.name for branch in refs.branches])
    return found


@pytest.mark.slow
def test_a_run_killed_in_each_stage_again_and_again_ends_as_if_it_had_never_been(tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for folder in (calm, stormy):
        toy.lay_out(folder)
    chance = random.Random(SEED)
    kills = [
        (stage, moment)
        for stage in STAGES
        for moment in MOMENTS
        if killed_after(f"{stage}: {moment}", stormy, chance.uniform(0, 0.12))
    ]
    assert {stage for stage, _ in kills} == set(STAGES)
    assert len(kills) >= 2 * len(STAGES), "the kills came too late to test anything"
    for folder in (calm, stormy):
        assert not killed_after("never said", folder, 0)

    expected, found = stood(calm), stood(stormy)
    assert set(expected) == {"clinic/toy", *(f"clinic/toy-{stage}" for stage in STAGES if stage != "merge")}
    assert found == expected
    assert {entry[1:3] for entry in found.values()} == {(2, 1)}
    assert all(entry[3] == ["main"] for entry in found.values())
