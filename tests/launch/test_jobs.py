"""A stage sent as a Job to the embedded Hub by the real client: logged, stopped by its time limit, gone on with."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from medllm.errors import LaunchError, RecipeError
from medllm.hub import Hub, connect
from medllm.launch.jobs import HubJobs, carried, dependencies, flavor_of, push_package, where_vllm_is
from medllm.localhub import serve
from medllm.pipeline import BuildContext, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from medllm.recipe.settings import Merge
from tests.pipeline import toy
from tests.refusals import refused

SLOW = Path(__file__).parent / "slow_job.py"
TEXT = (
    "肺塞栓症は突然の呼吸困難と胸痛で発症し、下肢の深部静脈血栓が原因であることが多い。"
    "診断には造影CTを用い、抗凝固療法を行う。"
)
QUESTION = {
    "question_id": "1",
    "text": "大動脈解離について正しいのはどれか。",
    "choices": ["ア", "イ"],
    "answer": "a",
}


@pytest.fixture
def hub(tmp_path):
    with connect(str(tmp_path / "hub"), "clinic", jobs=True) as there:
        yield there


@pytest.fixture
def sent(tmp_path, hub):
    """Send the corpus stage of the toy recipe as a Job; what was said is in `said`."""
    toy.lay_out(tmp_path)
    messages = []

    def send(jobs: HubJobs):
        plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub, ("corpus",))
        return run(plan, BuildContext(hub, tmp_path / "runs", messages.append), jobs.launch, lambda plan: None)[
            "corpus"
        ]

    send.messages = messages
    return send


def jobs_of(hub):
    return list(hub.api.list_jobs(namespace="clinic"))


@pytest.mark.long
@pytest.mark.slow
def test_a_job_that_dies_half_way_is_sent_again_and_goes_on_from_what_was_kept(hub, sent):
    made = sent(HubJobs(keep_every=0.2, script=SLOW))
    first, second = sorted(jobs_of(hub), key=lambda job: job.created_at)
    folder = hub.pull(made)
    assert [(folder / f"step-{step}").read_text() for step in range(2)] == [first.id, second.id]
    assert [branch.name for branch in hub.refs(made.repo_id, "dataset").branches] == ["main"]
    text = "\n".join(sent.messages)
    assert "corpus | step 1; the token is ***" in text
    assert hub.token not in text
    assert not any(hub.token in repr(job) for job in (first, second))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "limit", "status"), [("sys.exit(3)", "1h", "ERROR"), ("time.sleep(999)", "1s", "ERROR (Job timeout)")]
)
def test_a_job_that_got_nowhere_is_reported_with_its_log_and_not_sent_again(hub, sent, tmp_path, ending, limit, status):
    dying = tmp_path / "dying.py"
    dying.write_text(f"import sys, time\nprint('no such device', flush=True)\n{ending}\n")
    with refused("launch.job-without-progress", "corpus", f"ended as {status}", "hf jobs logs"):
        sent(HubJobs(script=dying, timeout=limit))
    assert len(jobs_of(hub)) == 1


@pytest.fixture
def lingering(tmp_path):
    """A Hub and a Job that has kept its first step and then does nothing more; what ends it is up to the test."""
    toy.lay_out(tmp_path)
    (tmp_path / "linger").touch()
    messages = []
    with serve(tmp_path / "hub", user="clinic", allow_jobs=True) as served:
        hub = Hub(served.url, served.token, tmp_path / "cache", "test")
        plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub, ("corpus",))

        def run_until_kept(end):
            def say(text):
                messages.append(text)
                if "is kept on the Hub" in text and (tmp_path / "linger").exists():
                    (tmp_path / "linger").unlink()
                    end(served, jobs_of(hub)[0])

            jobs = HubJobs(keep_every=0.2, script=SLOW)
            return run(plan, BuildContext(hub, tmp_path / "runs", say), jobs.launch, lambda plan: None)["corpus"]

        run_until_kept.hub, run_until_kept.messages = hub, messages
        yield run_until_kept


def time_is_up(served, job):
    """What the Hub's own timer does when a Job has had its time."""
    served._jobs._running[job.id].stop("TIMEOUT")


@pytest.mark.long
@pytest.mark.slow
def test_a_job_whose_time_is_up_is_followed_by_another_that_goes_on(lingering):
    made = lingering(time_is_up)
    first, second = sorted(jobs_of(lingering.hub), key=lambda job: job.created_at)
    assert (first.status.stage, first.status.message) == ("ERROR", "Job timeout")
    assert second.status.stage == "COMPLETED"
    assert (lingering.hub.pull(made) / "step-0").read_text() == first.id
    assert any("(Job timeout); sending another that resumes the kept work" in line for line in lingering.messages)


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_somebody_cancels_is_not_sent_again_until_somebody_asks(lingering):
    with refused("launch.job-without-progress", "corpus", "CANCELED"):
        lingering(lambda served, job: lingering.hub.api.cancel_job(job_id=job.id))
    (first,) = jobs_of(lingering.hub)
    made = lingering(time_is_up)  # it lingers no more, so nothing is ended
    assert len(jobs_of(lingering.hub)) == 2
    assert (lingering.hub.pull(made) / "step-0").read_text() == first.id


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_an_earlier_run_left_at_work_is_followed_and_not_doubled(lingering, tmp_path):
    hub = lingering.hub
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub, ("corpus",))
    left = HubJobs(keep_every=0.2, script=SLOW)._send(plan, plan.items[0], BuildContext(hub, tmp_path / "runs", print))
    made = lingering(time_is_up)
    assert any(
        line.startswith(f"corpus: following Job {left.id}, which an earlier run sent") for line in lingering.messages
    )
    assert len(jobs_of(hub)) == 2
    assert (hub.pull(made) / "step-0").read_text() == left.id


def lay_out_real_corpus(folder: Path) -> None:
    """The toy recipe with a text and a question that the real corpus stage takes."""
    toy.lay_out(folder)
    (folder / "texts" / "a.txt").write_text(TEXT * 3)
    (folder / "world" / "q.jsonl").write_text(json.dumps(QUESTION, ensure_ascii=False) + "\n")
    stated = "data: {source: ./texts, license: cc0-1.0, published: 2015-01-01}, held"
    recipe = folder / "toy.yaml"
    recipe.write_text(recipe.read_text().replace("data: ./texts, held", stated))


@pytest.mark.slow
def test_the_real_script_makes_the_real_stage_from_the_code_of_here(tmp_path, hub):
    lay_out_real_corpus(tmp_path)
    messages = []
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub, ("corpus",))
    made = run(plan, BuildContext(hub, tmp_path / "runs", messages.append), HubJobs().launch, lambda plan: None)[
        "corpus"
    ]
    assert (hub.pull(made) / "facts.json").is_file(), "\n".join(messages)
    assert not list(tmp_path.glob(".job-*"))  # the recipe that was laid beside its folders is gone again
    assert plan.items[0].digest == hub.provenance(made).digest


def test_the_code_is_pushed_once_and_is_private(hub):
    first = push_package(hub, "clinic")
    assert push_package(hub, "clinic") == first
    assert hub.api.repo_info("clinic/medllm-code", repo_type="dataset").private
    assert (hub.pull(first) / "model_card" / "merged.md").is_file()


def test_a_folder_of_this_machine_is_refused_where_a_job_could_not_see_it(tmp_path, hub):
    toy.lay_out(tmp_path)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub, ("corpus",))
    far = BuildContext(replace(hub, endpoint="https://hub.example.org"), tmp_path / "runs", print)
    with refused("launch.local-folder", "corpus", "./texts, world", "hf upload"):
        HubJobs().launch(plan, plan.items[0], {}, far)


@pytest.mark.parametrize(
    ("asked", "rented"),
    [
        ("a100x2", "a100x4"),
        ("a100", "a100-large"),
        ("h200x8", "h200x8"),
        ("cpu-upgrade", "cpu-upgrade"),
        ("l40sx2", "l40sx4"),
    ],
)
def test_the_next_larger_machine_that_the_hub_rents_out_is_taken(tmp_path, hub, asked, rented):
    toy.lay_out(tmp_path)
    recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), {"corpus.run_on": asked})
    assert flavor_of(make_plan(recipe, hub, ("corpus",)).items[0]) == rented


def test_a_job_gets_exactly_the_versions_of_here():
    wanted = dependencies("cpt")
    assert any(one.startswith("torch==") for one in wanted)
    assert all("==" in one and "+" not in one for one in wanted)
    assert not any(one.startswith("torch==") for one in dependencies("space"))


def sent_with(tmp_path, hub, monkeypatch, stage="corpus", **changes):
    """What the client is asked for when a stage is sent, and what it is."""
    asked = {}
    monkeypatch.setattr("medllm.launch.jobs._sent", lambda api, script, **more: asked.update(more) or STUB)
    toy.lay_out(tmp_path)
    plan = make_plan(with_overrides(read_recipe(tmp_path / "toy.yaml"), changes), hub, (stage,))
    item = next(one for one in plan.items if one.stage == stage)
    HubJobs()._send(plan, item, BuildContext(hub, tmp_path / "runs", lambda text: None))
    return asked


STUB = type("Job", (), {"id": "1", "url": "http://hub"})()


def test_image_packages_and_time_limit_are_those_of_the_recipe(tmp_path, hub, monkeypatch):
    changes = {"jobs": {"image": "ghcr.io/astral-sh/uv:debian", "packages": ["kernels==0.5"], "timeout": "3h"}}
    asked = sent_with(tmp_path, hub, monkeypatch, **changes)
    assert (asked["image"], asked["timeout"]) == ("ghcr.io/astral-sh/uv:debian", "3h")
    assert asked["dependencies"][-1] == "kernels==0.5"
    plain = sent_with(tmp_path / "plain", hub, monkeypatch)
    assert (plain["image"], plain["timeout"]) == (None, "12h")


def test_the_number_of_jobs_for_a_stage_is_that_of_the_recipe(tmp_path, hub):
    toy.lay_out(tmp_path)
    recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), {"jobs.tries": 1})
    plan = make_plan(recipe, hub, ("corpus",))
    with refused("launch.jobs-used-up", "corpus", "1 Jobs"):
        run(
            plan,
            BuildContext(hub, tmp_path / "runs", print),
            HubJobs(keep_every=0.2, script=SLOW).launch,
            lambda plan: None,
        )


@pytest.mark.parametrize(
    "jobs", [{"timeout": "soon"}, {"timeout": "0h"}, {"tries": 0}, {"image": "a b"}, {"flavor": "x"}]
)
def test_what_the_hub_could_not_read_is_reported_before_anything_is_sent(tmp_path, jobs):
    toy.lay_out(tmp_path)
    with pytest.raises(RecipeError) as caught:
        with_overrides(read_recipe(tmp_path / "toy.yaml"), {"jobs": jobs})
    assert "jobs." in str(caught.value)


def far_from(hub):
    return replace(hub, endpoint="https://hub.example.org")


def test_a_job_gets_the_accelerate_config_that_lies_beside_the_recipe_and_needs_none_for_a_name(tmp_path, hub):
    toy.lay_out(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "two.yaml").write_text("num_processes: 2\n")
    recipe = read_recipe(tmp_path / "toy.yaml")
    text = {}
    for name in ("fsdp2", "own/two.yaml", "/etc/hostname", "../two.yaml", "nowhere.yaml"):
        plan = make_plan(with_overrides(recipe, {"cpt.accelerate": name}), hub, ("cpt",))
        try:
            text[name] = carried(plan.items[-1], plan, far_from(hub))
        except LaunchError as error:
            text[name] = error.code
    assert text["fsdp2"] == {}
    assert text["own/two.yaml"]["MEDLLM_ACCELERATE_AT"] == "own/two.yaml"
    assert base64.b64decode(text["own/two.yaml"]["MEDLLM_ACCELERATE"]) == b"num_processes: 2\n"
    for name in ("/etc/hostname", "../two.yaml", "nowhere.yaml"):
        assert text[name] == "training.no-accelerate-config"


def test_a_job_finds_vllm_as_here_on_this_machine_and_else_in_its_image_or_by_uv(tmp_path, hub, monkeypatch):
    toy.lay_out(tmp_path)
    recipe = read_recipe(tmp_path / "toy.yaml")
    monkeypatch.setenv("MEDLLM_VLLM", "/opt/vllm")

    def found(where, **changes):
        plan = make_plan(with_overrides(recipe, changes), hub, ("preferences",))
        return where_vllm_is(plan.items[-1], plan, where)

    asked = {"preferences.engine": "vllm==0.32.0"}
    assert found(hub, **asked) == {"MEDLLM_VLLM": "/opt/vllm"}
    assert found(far_from(hub), **asked) == {"MEDLLM_VLLM": "uv"}
    assert found(far_from(hub), **asked, **{"jobs.image": "vllm/vllm-openai:v0.32.0"}) == {}
    assert found(far_from(hub)) == {}
    rounds = {"exams": {"world": "./world", "mock": "./world"}, "evaluate.benchmarks": [], "corpus.held_out": ["mock"]}
    rounds |= {"rounds": {"exam": "mock", "preferences": {"engine": "vllm"}}}
    planned = make_plan(with_overrides(recipe, rounds), hub, ("rounds",))
    assert where_vllm_is(planned.items[-1], planned, far_from(hub)) == {"MEDLLM_VLLM": "uv"}, "a part of it asks vLLM"
    monkeypatch.delenv("MEDLLM_VLLM")
    assert found(hub, **asked) == {}, "the program of that name on this machine's path"


def test_a_merge_without_a_machine_gets_the_cheapest_one_whose_disk_holds_base_and_merged_model(tmp_path, hub):
    toy.lay_out(tmp_path)
    recipe = read_recipe(tmp_path / "toy.yaml")
    item = replace(make_plan(recipe, hub, ("corpus",)).items[0], stage="merge", settings=Merge(model="cpt"))
    plan = make_plan(recipe, hub, ("corpus",))
    sizes = {"0.5B": "cpu-basic", "7B": "cpu-basic", "14B": "l4x1", "32B": "l4x1", "72B": "l4x1"}
    for size, flavor in sizes.items():
        of = replace(plan, recipe=recipe.model_copy(update={"base": f"Qwen/Qwen2.5-{size}@main"}))
        assert flavor_of(item, of) == flavor, size
