"""Every rule between the blocks of a recipe, by the code, the line, the place and the values of its fault."""

from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import read_recipe
from medllm.recipe.dependencies import is_full, missing_folders
from tests.recipe.conftest import faults_in
from tests.refusals import refused

CPT = "cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2\n  learning_rate: 1e-4"


@pytest.mark.parametrize(
    ("old", "new", "code", "values"),
    [
        (
            "held_out: [igakuqa, medqa-ja]",
            "held_out: [igakuqa]",
            "recipe.exam-not-held-out",
            ("line 7, corpus.held_out:", "`medqa-ja`"),
        ),
        (
            "preferences:\n  model: cpt",
            "preferences:\n  held_out: [igakuqa]\n  model: cpt",
            "recipe.exam-not-held-out",
            ("line 13, preferences.held_out:", "`medqa-ja`"),
        ),
        ("me/texts@v1", "me/texts", "recipe.no-revision", ("line 6, corpus.data[0]:", "`me/texts@main`")),
        ("0.5B@main", "0.5B", "recipe.no-revision", ("line 2, base:", "`Qwen/Qwen2.5-0.5B@main`")),
        ("Qwen/Qwen2.5-0.5B@main", "qwen", "recipe.base-is-no-model", ("line 2, base:", "`qwen`")),
        (
            "cutoff: 2017-12-31",
            "cutoff: 2019-12-31",
            "recipe.cutoff-too-late",
            ("line 4, cutoff:", "2019-12-31", "`igakuqa`", "2018-02-10", "`years`"),
        ),
        (
            "cpt:\n",
            "cpt:\n  model: rpo\n",
            "recipe.later-stage",
            ("line 9, cpt.model:", "`rpo`", "`cpt`", "Available: base."),
        ),
        (
            "preferences:\n  model: cpt",
            "preferences:\n  model: preferences",
            "recipe.own-input",
            ("line 13, preferences.model:", "`preferences`"),
        ),
        (
            "rpo:\n  model: cpt",
            "rpo:\n  model: corpus",
            "recipe.wrong-kind",
            ("line 16, rpo.model:", "`corpus`", "dataset", "model", "Available: base, cpt."),
        ),
        ("  learning_rate: 1e-4", "  data: base", "recipe.wrong-kind", ("line 11, cpt.data:", "`base`", "dataset")),
        (
            "rpo:\n  model: cpt",
            "rpo:\n  model: openai:gpt",
            "recipe.api-outside-evaluate",
            ("line 16, rpo.model:", "`openai:gpt`", "`evaluate`"),
        ),
        ("me/texts@v1", "./texts", "recipe.no-such-folder", ("line 6, corpus.data[0]:", "./texts", "(looked in .)")),
        (
            "  learning_rate: 1e-4",
            "  data: corpsu",
            "recipe.unknown-source",
            ("line 11, cpt.data:", "`corpsu`", "Did you mean `corpus`?", "`ORG/NAME@REVISION`"),
        ),
        (
            "  num_train_epochs: 2\n",
            "",
            "recipe.training-end",
            ("line 8, cpt:", "`num_train_epochs`", "`max_steps`"),
        ),
        (
            "  num_train_epochs: 2\n",
            "  max_steps: 1\n",
            "recipe.only-warm-up",
            ("cpt.max_steps:", "`warmup_ratio: 0`"),
        ),
        (
            "  num_train_epochs: 2\n",
            "  num_train_epochs: 2\n  eval_strategy: steps\n",
            "recipe.evaluation-without-interval",
            ("line 11, cpt.eval_strategy:", "`eval_steps`"),
        ),
        (
            "  num_train_epochs: 2\n",
            "  num_train_epochs: 2\n  eval_strategy: epoch\n  eval_steps: 5\n",
            "recipe.no-evaluation",
            ("line 12, cpt.eval_steps:", "`eval_strategy: epoch`"),
        ),
        (
            "  num_train_epochs: 2\n",
            "  num_train_epochs: 2\n  load_best_model_at_end: true\n",
            "recipe.no-evaluation",
            ("line 11, cpt.load_best_model_at_end:", "`eval_strategy: steps`"),
        ),
        (
            "  rpo_alpha: 10\n",
            "  rpo_alpha: 10\n  label_smoothing: 0.1\n",
            "recipe.label-smoothing",
            ("rpo.label_smoothing:", "`sigmoid`", "`robust`"),
        ),
        (
            "  rpo_alpha: 10\n",
            "  rpo_alpha: 10\n  loss_type: exo_pair\n",
            "recipe.label-smoothing",
            ("rpo.label_smoothing:", "above 0"),
        ),
        ("merge: {model: rpo}", "merge: {model: base}", "recipe.no-adapter-to-merge", ("line 19, merge.model:",)),
        (
            "preferences:\n  model: cpt",
            "preferences:\n  model: cpt\n  temperature: 0",
            "recipe.identical-samples",
            ("preferences.samples:", "8"),
        ),
        (
            "  num_train_epochs: 2",
            "  num_train_epochs: 2\n  run_on: a1000x4",
            "recipe.unknown-machine",
            ("line 11, cpt.run_on:", "`a1000x4`", "Did you mean `a100x4`?"),
        ),
        (
            "  num_train_epochs: 2",
            "  num_train_epochs: 2\n  run_on: a100x4\n  total_batch_size: 6",
            "recipe.batch-not-divisible",
            ("line 12, cpt.total_batch_size:", "6 rows", "multiple of 4"),
        ),
        (
            "  num_train_epochs: 2",
            "  num_train_epochs: 2\n  run_on: t4-small",
            "recipe.no-bfloat16",
            ("cpt.dtype:", "t4x1", "`dtype: float16`"),
        ),
        ("cpt-dpo: {", "cpt: {", "recipe.duplicate-name", ("line 24, ablations.cpt:", "`cpt`")),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8}, max_steps: 2, accelerate: fsdp2, quantization: nf4, dtype: float32}",
            "recipe.nf4-not-bfloat16",
            ("line 8, cpt.dtype:", "float32", "`dtype: bfloat16`"),
        ),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8, target_modules: [q_proj, lm_head]}, num_train_epochs: 2}",
            "recipe.adapter-on-lm-head",
            ("line 8, cpt.lora.target_modules:", "`lm_head`"),
        ),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8, target_modules: embed_tokens, use_dora: true}, max_steps: 2}",
            "recipe.adapter-mix",
            ("line 8, cpt.lora.target_modules:", "DoRA", "`embed_tokens`"),
        ),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8, modules_to_save: model.q_proj}, max_steps: 2}",
            "recipe.adapter-mix",
            ("line 8, cpt.lora.modules_to_save:", "`q_proj`"),
        ),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8, use_dora: true}, max_steps: 2, accelerate: fsdp2}",
            "recipe.adapter-not-divisible",
            ("line 8, cpt.lora.use_dora:", "`use_dora`", "`accelerate: ddp`"),
        ),
        (
            CPT,
            "cpt: {lora: {r: 4, lora_alpha: 8, use_dorra: true}, max_steps: 2}",
            "recipe.unknown-key",
            ("use_dorra", "`use_dora`"),
        ),
        (
            "  benchmarks: [igakuqa, medqa-ja]\n",
            "  benchmarks: [igakuqa, medqa-ja]\n  prompts: [plain, think]\n",
            "recipe.think-needs-chat",
            ("line 23, evaluate.prompts:", "`think`", "`base`", "`format: chat`"),
        ),
    ],
)
def test_a_broken_rule_is_named_with_line_place_and_values(read_changed, old: str, new: str, code: str, values):
    with refused(code, "small.yaml", *values, kind=RecipeError):
        read_changed(old, new)


def test_an_unknown_exam_is_named_at_each_list_that_holds_it(read_changed):
    with refused("recipe.faults", "`igakuqaa`", "Did you mean `igakuqa`?") as caught:
        read_changed("held_out: [igakuqa, medqa-ja]", "held_out: [igakuqa, medqa-ja, igakuqaa]")
    assert faults_in(caught.value) == [
        ("line 7, corpus.held_out", "recipe.unknown-exam"),
        ("line 12, preferences.held_out", "recipe.unknown-exam"),
    ]


def test_full_fine_tuning_is_not_in_four_bits_and_leaves_nothing_to_merge(read_changed):
    with refused("recipe.faults", "`quantization: none`", "nothing to merge") as caught:
        read_changed("lora: {r: 64, lora_alpha: 128}", "quantization: nf4")
    assert {
        ("line 9, cpt.quantization", "recipe.full-on-4-bit"),
        ("line 19, merge.model", "recipe.no-adapter-to-merge"),
    } <= set(faults_in(caught.value))


def test_without_lora_all_weights_are_trained_and_rpo_goes_on_with_them(sound: Path):
    recipe = read_recipe(sound, {"cpt.lora": None, "merge": None})
    assert is_full(recipe, "cpt") and is_full(recipe, "rpo") and not is_full(read_recipe(sound), "rpo")


def test_a_batch_is_shared_by_all_nodes(read_changed):
    old = "cpt:\n  lora: {r: 64, lora_alpha: 128}\n"
    with refused("recipe.faults", "16 rows", "multiple of 24", "multiple of 3.") as caught:
        read_changed(old, f"slurm: {{nodes: 3}}\n{old}  run_on: a100x8\n")
    assert faults_in(caught.value) == [
        ("line 9, cpt.total_batch_size", "recipe.batch-not-divisible"),
        ("line 17, rpo.total_batch_size", "recipe.batch-not-divisible"),
    ]


def test_the_first_day_of_an_own_exam_may_be_left_to_its_rows_and_is_compared_where_it_is_stated(sound: Path):
    own = {"corpus.held_out": ["mine"], "evaluate.benchmarks": ["mine"]}
    assert read_recipe(sound, {**own, "exams": {"mine": "me/mine@v1"}}).evaluate
    with refused("recipe.cutoff-too-late", "(2015-02-07)"):
        read_recipe(sound, {**own, "exams": {"mine": {"source": "me/mine@v1", "first": "2015-02-07"}}})


def test_later_years_may_be_asked_after_a_later_cutoff(sound: Path):
    later = {"cutoff": "2019-12-31", "evaluate.years": [2021, 2022]}
    assert read_recipe(sound, later).evaluate


def test_each_use_of_a_stage_that_the_recipe_lacks_is_a_fault(read_changed):
    with refused("recipe.faults", "`cpt`", "Available: base, rpo, merge.", kind=RecipeError) as caught:
        read_changed(CPT, "")
    assert faults_in(caught.value) == [
        ("line 10, preferences.model", "recipe.no-such-stage"),
        ("line 13, rpo.model", "recipe.no-such-stage"),
        ("line 18, evaluate.models.cpt", "recipe.no-such-stage"),
    ]


def test_a_folder_that_a_command_writes_may_be_absent(sound: Path):
    text = sound.read_text("utf-8").replace("me/texts@v1", "./texts")
    sound.write_text(text.replace("namespace: me", "namespace: me\nprepared_by: make texts"), "utf-8")
    recipe = read_recipe(sound)
    assert missing_folders(recipe) == ("./texts",)
    (sound.parent / "texts").mkdir()
    assert missing_folders(recipe) == ()


def test_an_optimizer_that_cannot_step_over_shares_is_refused_with_every_way_to_ask_for_them(read_changed, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("num_processes: 4\ndistributed_type: FSDP\n", "utf-8")
    for accelerate, optim in (("fsdp2", "adamw_8bit"), (str(file), "adamw_8bit"), ("fsdp2", "paged_adamw_8bit")):
        with refused("recipe.optimizer-not-divisible", "cpt.optim:", f"`{optim}`", "`optim: adamw_torch`"):
            read_changed(
                "  learning_rate: 1e-4", f"  optim: {optim}\n  accelerate: {accelerate}\n  learning_rate: 1e-4"
            )


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("evaluate: {models: {a: me/a@v1}, benchmarks: [medqa]}", []),
        ("evaluate: {models: {a: base}, benchmarks: [medqa]}", ["base"]),
        ("evaluate: {models: {a: me/a@v1}, benchmarks: [medqa]}\nspace: {}", ["namespace"]),
        ("merge: {model: me/a@v1}", ["base", "cutoff", "namespace"]),
        ("publish: {private: true}", ["base", "cutoff", "namespace"]),
    ],
)
def test_only_a_recipe_that_trains_or_publishes_needs_base_cutoff_and_namespace(tmp_path, text, missing):
    path = tmp_path / "some.yaml"
    path.write_text(f"name: some\n{text}\n", "utf-8")
    if not missing:
        recipe = read_recipe(path)
        assert (recipe.base, recipe.cutoff, recipe.namespace) == (None, None, None)
        return
    with refused("recipe.missing-key" if len(missing) == 1 else "recipe.faults", *missing):
        read_recipe(path)


def test_thinking_is_asked_of_models_that_chat(read_changed):
    thinking = "  benchmarks: [igakuqa, medqa-ja]\n  prompts: [plain, think]\n"
    for form in ("chat", "auto"):
        assert read_changed("  benchmarks: [igakuqa, medqa-ja]\n", f"{thinking}  format: {form}\n").evaluate
    models = "  models: {base: base, cpt: cpt, final: rpo}\n  benchmarks: [igakuqa, medqa-ja]\n"
    served = "  models: {m: {api: http://127.0.0.1:1/v1, model: m%s}, gpt: openai:gpt-4o}\n" + thinking
    assert read_changed(models, served % "").evaluate
    with refused("recipe.think-needs-chat", "`chat: true`"):
        read_changed(models, served % ", chat: false")


def test_pairs_of_thinking_replies_need_chat_and_no_verified_answer_without_thinking(read_changed):
    data, asked = "  data: me/explanations@v1\n", "  prompt: think\n  format: %s\n  pairs: [%s]\n"
    kept = "chosen>rejected"
    for form, pairs, *refusal in (
        ("completion", kept, "recipe.think-needs-chat", "preferences.prompt", "`format: chat`"),
        ("chat", f"gt>chosen, {kept}", "recipe.think-without-truth", "preferences.pairs", "`gt>chosen`"),
    ):
        with refused(*refusal):
            read_changed(data, data + asked % (form, pairs))
    for form in ("chat", "auto"):
        assert read_changed(data, data + asked % (form, kept)).preferences.prompt == "think"


def test_values_of_a_template_do_not_decide_what_the_evaluation_decides(read_changed):
    for value in ("{tokenize: false}", "{think: {messages: []}}"):
        with refused("recipe.wrong-type", "evaluate.chat_template_kwargs"):
            read_changed("  benchmarks: [igakuqa", f"  chat_template_kwargs: {value}\n  benchmarks: [igakuqa")


def test_sft_comes_behind_the_training_whose_model_it_continues_and_no_circle_is_built():
    from medllm.recipe import stages_of
    from medllm.recipe.dependencies import is_full, lora_of, weights_of
    from medllm.recipe.settings import Recipe, Rpo, Sft
    from medllm.recipe.validators import broken_rules

    lora = {"r": 2, "lora_alpha": 4}
    after = Sft(model="rpo", data=["./talks"], max_steps=4)
    rpo = Rpo(model="base", data="./pairs", rpo_alpha=1, max_steps=4, lora=lora)
    recipe = Recipe(name="toy", base="./base", namespace="me", cutoff="2017-12-31", sft=after, rpo=rpo)
    assert stages_of(recipe) == ("rpo", "sft")
    assert stages_of(recipe.model_copy(update={"sft": after.model_copy(update={"model": "base"})})) == ("sft", "rpo")
    assert lora_of(recipe, "sft") == rpo.lora and not is_full(recipe, "sft") and weights_of(recipe, "sft") == "base"
    circle = recipe.model_copy(update={"rpo": rpo.model_copy(update={"model": "sft", "lora": None})})
    assert "recipe.later-stage" in {fault.code for fault in broken_rules(circle)}
