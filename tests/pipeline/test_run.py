"""A run makes what is missing and nothing else, and goes on wherever the last one was stopped."""

import errno

import pytest

from medllm.errors import HubError, RecipeError
from medllm.hub import Artifact
from medllm.hub.push import push
from medllm.recipe.settings import STAGES
from tests.refusals import refused

MADE = [stage for stage in STAGES if stage not in ("teach", "sft", "rounds", "grpo", "space")]


def test_the_second_run_makes_nothing(workshop):
    first = workshop.run()
    assert workshop.worked == MADE
    assert {name: artifact.repo_id for name, artifact in first.items()} == {
        stage: "clinic/toy" if stage == "merge" else f"clinic/toy-{stage}" for stage in MADE
    }
    assert workshop.run() == first
    assert workshop.worked == MADE


def test_a_folder_that_a_command_has_not_written_yet_stops_the_run_and_names_the_command(workshop):
    changed = ("prepared_by=make texts", "corpus.data=./absent")
    with refused("recipe.no-such-folder", "corpus.data[0]:", "./absent", "`make texts`", kind=RecipeError):
        workshop.run(*changed)
    assert workshop.worked == []


def test_a_changed_value_remakes_exactly_what_depends_on_it_and_says_which_value(workshop):
    workshop.run()
    plan = workshop.plan("rpo.rpo_alpha=0")
    assert {item.stage: item.why for item in plan.missing} == {
        "rpo": "rpo_alpha 10 -> 0",
        "merge": "rpo is remade",
        "evaluate": "rpo is remade",
    }
    assert all(item.remade for item in plan.missing)
    workshop.worked.clear()
    workshop.run("rpo.rpo_alpha=0")
    assert workshop.worked == ["rpo", "merge", "evaluate"]
    workshop.worked.clear()
    workshop.run()  # back again: the first outcome still stands under its tag
    assert workshop.worked == []


def test_a_changed_text_remakes_what_learnt_from_it(workshop):
    workshop.run()
    (workshop.folder / "texts" / "a.txt").write_text("another")
    assert {item.stage: item.why for item in workshop.plan().missing}["corpus"] == "./texts has changed"


def test_hardware_and_batch_split_remake_nothing(workshop):
    workshop.run()
    assert workshop.plan("rpo.run_on=a100x8", "cpt.per_device_train_batch_size=4").missing == ()


def test_one_stage_brings_what_it_needs_and_no_more(workshop):
    workshop.run(wanted=("cpt",))
    assert workshop.worked == ["corpus", "cpt"]
    with refused("recipe.no-such-stage", "space:", "corpus, cpt", kind=RecipeError):
        workshop.plan(wanted=("space",))
    with refused("command.unknown-stage", "dpo:", "Did you mean `rpo`?", kind=RecipeError):
        workshop.plan(wanted=("dpo",))


def test_each_source_is_given_under_the_name_the_recipe_writes(workshop):
    made = workshop.run()
    seen = (workshop.hub.pull(made["evaluate"]) / "seen.json").read_text()
    for name in ("base", "cpt", "rpo", "world"):
        assert f'"{name}"' in seen


def test_every_output_tells_the_exact_commits_it_was_made_from(workshop):
    made = workshop.run()
    provenance = workshop.hub.provenance(made["rpo"])
    commits = {source.reference: source.commit for source in provenance.inputs if source.repo_id}
    assert commits == {"cpt": made["cpt"].revision, "preferences": made["preferences"].revision}
    assert provenance.settings["rpo_alpha"] == 10
    assert "run_on" not in provenance.settings


def test_a_stage_that_fails_is_gone_on_with_from_its_half_made_work(workshop):
    def stop(stage, part):
        if stage == "cpt" and not (part / "half").exists():
            (part / "half").write_text("learnt so far")
            raise KeyboardInterrupt

    workshop.before_the_end = stop
    with pytest.raises(KeyboardInterrupt):
        workshop.run()
    made = workshop.run()
    assert workshop.worked == ["corpus", "cpt", "cpt", "preferences", "rpo", "merge", "evaluate"]
    assert (workshop.hub.pull(made["cpt"]) / "half").read_text() == "learnt so far"
    assert any("going on where it was stopped" in line for line in workshop.messages)


def test_made_but_not_pushed_is_pushed_without_being_made_again(workshop, monkeypatch):
    def down(*args, **more):
        raise HubError("hub.unreachable", "the network is down")

    monkeypatch.setattr("medllm.pipeline.build.push", down)
    with pytest.raises(HubError):
        workshop.run(wanted=("corpus",))
    monkeypatch.setattr("medllm.pipeline.build.push", push)
    workshop.run(wanted=("corpus",))
    assert workshop.worked == ["corpus"]


def test_pushed_but_not_tagged_is_tagged_without_being_pushed_again(workshop):
    made = workshop.run(wanted=("corpus",))["corpus"]
    tag = workshop.hub.provenance(made).tag
    workshop.hub.api.delete_tag(made.repo_id, tag=tag, repo_type="dataset")
    assert workshop.run(wanted=("corpus",))["corpus"] == made
    assert workshop.worked == ["corpus"]


def test_foreign_content_is_never_overwritten_and_found_before_anything_is_made(workshop):
    workshop.hub.api.create_repo("clinic/toy-rpo", repo_type="model")
    kept = workshop.hub.api.upload_file(path_or_fileobj=b"mine", path_in_repo="w.bin", repo_id="clinic/toy-rpo")
    with refused("hub.foreign-files", "clinic/toy-rpo", "2 files"):
        workshop.run()
    assert workshop.worked == []
    assert workshop.hub.resolve("clinic/toy-rpo", "model") == Artifact("clinic/toy-rpo", "model", kept.oid)


def test_a_namespace_that_is_not_ours_is_refused_before_anything_is_made(workshop):
    with refused("hub.foreign-namespace", "clinic", "`other`", "--set namespace=clinic"):
        workshop.run("namespace=other")
    assert workshop.worked == []


def test_a_stage_that_ends_without_facts_is_not_taken_as_made(workshop):
    def wrong(settings, sources, out):
        out.mkdir()

    workshop.maker = lambda stage: wrong
    with refused("stage.no-facts", "corpus:"):
        workshop.run(wanted=("corpus",))
    assert workshop.hub.state_at("clinic/toy-corpus", "dataset") is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
def test_a_full_disk_is_named_and_the_next_run_goes_on_from_what_was_written(workshop, number):
    def full(stage, part):
        if workshop.worked == ["corpus"]:
            (part / "half").write_text("written before")
            raise OSError(number, "the system's word")

    workshop.before_the_end = full
    with refused("stage.disk-full", "corpus:", workshop.folder, "/corpus-", "--work"):
        workshop.run(wanted=("corpus",))
    made = workshop.run(wanted=("corpus",))["corpus"]
    assert (workshop.hub.pull(made) / "half").read_text() == "written before"


def test_a_tag_that_moves_while_a_run_is_at_work_does_not_part_the_stages_that_read_it(workshop):
    api = workshop.hub.api
    api.create_repo("clinic/texts", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.jsonl", repo_id="clinic/texts", repo_type="dataset")
    api.create_tag("clinic/texts", tag="v1", repo_type="dataset")
    recipe = workshop.folder / "toy.yaml"
    recipe.write_text(recipe.read_text().replace("./texts", "clinic/texts@v1"))
    before = workshop.hub.resolve("clinic/texts", "dataset", "v1").revision

    def move(stage, part):
        if stage == "corpus":
            api.upload_file(path_or_fileobj=b"[]", path_in_repo="b.jsonl", repo_id="clinic/texts", repo_type="dataset")
            api.delete_tag("clinic/texts", tag="v1", repo_type="dataset")
            api.create_tag("clinic/texts", tag="v1", repo_type="dataset")

    workshop.before_the_end = move
    made = workshop.run(wanted=("preferences",))
    commits = [workshop.hub.provenance(made[stage]).inputs for stage in ("corpus", "preferences")]
    assert [{one.commit for one in inputs if one.repo_id == "clinic/texts"} for inputs in commits] == [{before}] * 2
    assert workshop.plan().items[0].why.startswith("clinic/texts@v1 moved from")


def test_worked_examples_and_notes_of_an_exam_remake_the_evaluation_alone(workshop):
    workshop.run()
    for name in ("exemplars.jsonl", "README.md"):
        workshop.worked.clear()
        (workshop.folder / "world" / name).write_text("{}", "utf-8")
        workshop.run()
        assert workshop.worked == ["evaluate"]


def test_another_question_of_an_exam_remakes_every_stage_that_leaves_it_out(workshop):
    workshop.run()
    workshop.worked.clear()
    (workshop.folder / "world" / "more.jsonl").write_text("{}", "utf-8")
    workshop.run()
    assert {"corpus", "preferences", "evaluate"} <= set(workshop.worked)
