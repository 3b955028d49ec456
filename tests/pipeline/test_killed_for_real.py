"""The real stages, killed without warning at drawn moments and run again, end in what a calm run makes; nothing twice.

`MEDLLM_KILL_ROUNDS=20` makes it a long sweep: each round kills every part up to three times, by the clock, at a
touch or after a training's last checkpoint, and the whole run now and then at a moment drawn from all its time.
"""

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from medllm.hub import connect
from medllm.recipe.settings import STAGES
from tests.pipeline import real, whole

pytestmark = [pytest.mark.long, pytest.mark.flaky(reruns=0)]  # a kill that does harm now and then is what is looked for

SEED = 7
ROUNDS = int(os.environ.get("MEDLLM_KILL_ROUNDS", "0"))
TELLS_THE_TIME = ("README.md", "provenance.json")
NAMES_A_COMMIT = ("model_revision", "revision")
"""Columns that hold the commit of a model, which holds the time at which it was pushed."""

PROCESSES = multiprocessing.get_context("forkserver")  # one process that has imported everything, and is never killed
PROCESSES.set_forkserver_preload(["tests.pipeline.warm"])


def killed(folder: Path, part: str = "", touch: int = 0, seconds: float = 0.0, checkpoint: int = 0) -> bool:
    """Run, with the fuse set to this part's touch, moment or checkpoint; False when the run came to its end."""
    process = PROCESSES.Process(target=real.main, args=(folder, (part, touch, seconds, checkpoint)))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (folder / "log.txt").read_text()[-4000:]
    return process.exitcode != 0


def parts(folder: Path) -> dict[str, dict[str, float]]:
    """How often each part of the last whole run touched disk or network, and how many seconds it took."""
    return json.loads((folder / "parts.json").read_text())


def stood(folder: Path) -> dict[str, Any]:
    """For each repository its content, its commits, tags and branches."""
    found = {}
    with connect(str(folder / "hub"), "clinic") as hub:
        for repo_id, kind in hub.repositories("clinic"):
            (standing,) = hub.versions(repo_id, kind)
            commits = [one.title for one in hub.api.list_repo_commits(repo_id, repo_type=kind)]
            refs = hub.refs(repo_id, kind)
            names = [one.name for one in (*refs.tags, *refs.branches)]
            found[repo_id] = (standing.provenance.digest, content(hub.pull(standing.artifact)), commits, names)
    return found


def content(folder: Path) -> dict[str, Any]:
    """Every file byte for byte, but for what tells the time: tables by their rows, facts by their values."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in TELLS_THE_TIME or "tfevents" in name:
            continue
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found[name] = table.drop_columns([one for one in NAMES_A_COMMIT if one in table.column_names]).to_pylist()
        elif name == "facts.json":
            facts = json.loads(path.read_text())
            found[name] = {key: value for key, value in facts.items() if key not in ("seconds", "adapters")}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "run"
    whole.lay_out_rounds(folder)
    assert not killed(folder)
    return folder


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Where two Hubs differ, in words: a diff of the bytes would help nobody."""
    assert set(found) == set(expected)
    touches = []
    for repo_id, (digest, files, *history) in expected.items():
        other = found[repo_id]
        if (other[0], *other[2:]) != (digest, *history):
            touches.append(f"{repo_id}: {other[0][:12]} {other[2:]}, not {digest[:12]} {history}")
        touches += [f"{repo_id}: {name}" for name in {*files, *other[1]} if files.get(name) != other[1].get(name)]
    return touches


def test_each_stage_killed_at_a_drawn_touch_of_the_world_ends_in_the_same_artifacts(calm, tmp_path):
    chance = random.Random(SEED)
    folder = tmp_path / "run"
    whole.lay_out_rounds(folder)
    known = parts(calm)
    assert set(known) == {*STAGES, "publish"} - {"space", "teach", "sft", "grpo"}
    for part, touches in known.items():
        assert killed(folder, part, chance.randint(1, int(touches["touches"] * 0.9))), part
    assert not killed(folder)
    assert differing(stood(folder), stood(calm)) == []


@pytest.mark.parametrize("stage", ["cpt", "rpo"])
def test_a_training_killed_after_its_last_checkpoint_makes_no_update_more(calm, tmp_path, stage):
    folder = tmp_path / "run"
    whole.lay_out_rounds(folder)
    last = int(parts(calm)[stage]["checkpoints"])
    assert last
    assert killed(folder, stage, checkpoint=last)
    assert not killed(folder)
    assert differing(stood(folder), stood(calm)) == []


@pytest.mark.skipif(not ROUNDS, reason="MEDLLM_KILL_ROUNDS is not set: the short sweep above is all")
@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_long_sweep(calm, tmp_path, number):
    chance = random.Random(SEED + 1 + number)
    folder, kills = tmp_path / "run", 0
    whole.lay_out_rounds(folder)
    known = parts(calm)
    for part, touches in known.items():
        for _ in range(chance.randint(1, 3)):
            if touches["checkpoints"] and chance.random() < 0.34:
                kills += killed(folder, part, checkpoint=int(touches["checkpoints"]))
            elif chance.random() < 0.5:
                kills += killed(folder, part, touch=chance.randint(1, int(touches["touches"])))
            else:
                kills += killed(folder, part, seconds=chance.uniform(0, touches["seconds"]))
        if chance.random() < 0.3:  # what was at work may have moved on: any moment of the rest of the run
            kills += killed(folder, seconds=chance.uniform(0, sum(one["seconds"] for one in known.values())))
    assert kills
    assert not killed(folder)
    print(f"round {number}: {kills} kills")
    assert differing(stood(folder), stood(calm)) == []
