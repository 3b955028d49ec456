"""Reading a recipe: sound YAML alone, every fault at once with its code and place, overrides and ablations."""

import time
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import parse_override, read_recipe, with_overrides
from tests.recipe.conftest import faults_in
from tests.refusals import refused


def test_a_missing_file_is_named(tmp_path: Path):
    with refused("recipe.no-such-file", tmp_path / "no.yaml", "recipes/", kind=RecipeError):
        read_recipe(tmp_path / "no.yaml")


def test_a_folder_is_named(tmp_path: Path):
    with refused("recipe.is-a-folder", tmp_path, kind=RecipeError):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "code", "values"),
    [
        (
            "num_train_epochs: 2",
            "num_train_epochs: many",
            "recipe.wrong-type",
            ("line 10, cpt.num_train_epochs:", "`many`", "number"),
        ),
        ("cutoff: 2017-12-31", "cutoff: soon", "recipe.wrong-type", ("line 4, cutoff:", "`soon`", "2017-12-31")),
        ("cutoff: 2017-12-31", "cutoff: 2017", "recipe.wrong-type", ("line 4, cutoff:", "`2017`", "2017-12-31")),
        ("merge: {model: rpo}", "merge: rpo", "recipe.wrong-type", ("line 19, merge:", "`rpo`", "`key: value`")),
        (
            "num_train_epochs: 2",
            "num_train_epochs: true",
            "recipe.wrong-type",
            ("line 10, cpt.num_train_epochs:", "`True`"),
        ),
        (
            "num_train_epochs: 2",
            "num_train_epochs: 0",
            "recipe.out-of-range",
            ("line 10, cpt.num_train_epochs:", "`0`", "more than 0"),
        ),
        ("name: small", "name: a/b", "recipe.not-a-hub-name", ("line 1, name:", "`a/b`")),
        (
            "namespace: me",
            "namespace: me\nslurm: {mem: 200 GB}",
            "recipe.wrong-form",
            ("line 4, slurm.mem:", "`200 GB`", "[KMGT]"),
        ),
        (
            "namespace: me",
            "namespace: me\nslurm: {extra: [account=med]}",
            "recipe.not-an-sbatch-option",
            ("line 4, slurm.extra:", "`account=med`"),
        ),
        (
            "merge: {model: rpo}",
            "merge: {model: rpo, dtype: int8}",
            "recipe.unknown-value",
            ("line 19, merge.dtype:", "`int8`", "'bfloat16', 'float16' or 'float32'"),
        ),
        (
            "learning_rate:",
            "learnig_rate:",
            "recipe.unknown-key",
            ("line 11, cpt.learnig_rate:", "Did you mean `learning_rate`?"),
        ),
        (
            "lora: {r: 64",
            "lora: {rank: 1, r: 64",
            "recipe.unknown-key",
            ("line 9, cpt.lora.rank:", "Available: r, "),
        ),
        (
            "{r: 64, lora_alpha: 128}",
            "{r: 64, lora_alpha: 128, target_parameters: [experts.down_proj]}",
            "recipe.target-parameters",
            ("line 9, cpt.lora.target_parameters:", "`target_modules`"),
        ),
        ("merge:", "merg:", "recipe.unknown-key", ("line 19, merg:", "Did you mean `merge`?")),
        ("exam: own", "exm: own", "recipe.unknown-key", ("corpus.data[1].exm:", "Did you mean `exam`?")),
        ("  rpo_alpha: 10\n", "", "recipe.missing-key", ("line 15, rpo.rpo_alpha:",)),
        ("namespace: me\n", "", "recipe.missing-key", ("small.yaml, namespace:",)),
        (
            "{rpo.rpo_alpha: 0}",
            "{rpo.rpo_alfa: 0}",
            "recipe.unknown-key",
            ("line 24, ablations.cpt-dpo: rpo.rpo_alfa:", "Did you mean `rpo_alpha`?"),
        ),
        (
            "{rpo.rpo_alpha: 0}",
            "{name.x: 0}",
            "recipe.not-a-block",
            ("line 24, ablations.cpt-dpo: name.x:", "`name`", "`x`"),
        ),
    ],
)
def test_a_fault_is_named_with_its_line_place_and_value(read_changed, old: str, new: str, code: str, values):
    with refused(code, "small.yaml", *values, kind=RecipeError):
        read_changed(old, new)


def test_all_faults_are_reported_at_once_in_the_files_order(read_changed):
    with refused("recipe.faults", "small.yaml has 4 faults:") as caught:
        read_changed(
            "cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2",
            "cpt:\n  lora: {r: 0, lora_alpha: x}\n  data: rpo\n  num_train_epoks: 2",
        )
    assert faults_in(caught.value) == [
        ("line 9, cpt.lora.lora_alpha", "recipe.wrong-type"),
        ("line 9, cpt.lora.r", "recipe.out-of-range"),
        ("line 10, cpt.data", "recipe.later-stage"),
        ("line 11, cpt.num_train_epoks", "recipe.unknown-key"),
    ]


def test_overrides_are_checked_like_the_recipe(sound: Path):
    recipe = read_recipe(sound, dict([parse_override("rpo.rpo_alpha=0")]))
    assert recipe.rpo and recipe.rpo.rpo_alpha == 0
    with refused("recipe.out-of-range", "rpo.rpo_alpha:", "`-1`", "at least 0"):
        with_overrides(recipe, {"rpo.rpo_alpha": -1})
    with refused("recipe.no-value-to-set", "--set rpo.rpo_alpha:", "`--set rpo.rpo_alpha=0`"):
        parse_override("rpo.rpo_alpha")
    assert parse_override("a.b=[1, x]") == ("a.b", [1, "x"])
    assert parse_override("a=1e-5") == ("a", 1e-5)


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        (b"name: [a", "recipe.not-yaml", ("line 1:",)),
        (b"name: a\n\tbase: b\n", "recipe.tab", ("line 2:",)),
        (b"name: a\nname: b\n", "recipe.duplicate-key", ("line 2:", "`name`", "line 1.")),
        (b"cpt:\n  lora: {r: 1, r: 2}\n", "recipe.duplicate-key", ("line 2:", "`cpt.lora.r`", "line 2.")),
        (b"\xe5\xe9", "recipe.not-utf-8", ("byte 0",)),
        ("name: 医療".encode("shift_jis"), "recipe.not-utf-8", ("byte 6",)),
        (b"", "recipe.no-keys", ("`name: ...`",)),
        (b"- a\n- b\n", "recipe.no-keys", ("`name: ...`",)),
        (b"a: &x 1\nb: *x\n", "recipe.anchor", ("line 1:",)),
        (b"a: !!python/object:os.system x", "recipe.not-yaml", ("line 1:", "constructor")),
        (b"a: \x00", "recipe.not-yaml", ("#x0000",)),
        (b"a: 1\n---\nb: 2\n", "recipe.not-yaml", ("line 2:", "another document")),
        (b"name: a\r\n? [x, y]\r\n: 1", "recipe.not-yaml", ("line 2:", "unhashable key")),
    ],
)
def test_a_file_that_is_not_sound_yaml_is_refused_by_line(content: bytes, code: str, values, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with refused(code, path, *values, kind=RecipeError):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        ("a: b\n" * 100_000, "recipe.too-large", ("64,000",)),
        ("[" * 60_000, "recipe.too-deep", ("line 1:", "12 levels")),
        ("{a: " * 15_000, "recipe.too-deep", ("line 1:", "12 levels")),
        ("- " * 30_000, "recipe.too-deep", ("line 1:", "12 levels")),
    ],
    ids=["huge", "brackets", "braces", "dashes"],
)
def test_a_huge_or_deep_file_is_refused_at_once(content: str, code: str, values, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    before = time.process_time()
    with refused(code, path, *values, kind=RecipeError):
        read_recipe(path)
    assert time.process_time() - before < 5  # under 0.1 s in practice; a hang would be minutes


def test_1e_4_is_a_number(sound: Path):
    cpt = read_recipe(sound).cpt
    assert cpt and cpt.learning_rate == 1e-4


def test_words_that_yaml_would_bend_stay_words(sound: Path):
    text = sound.read_text().replace("name: small", "name: no")
    sound.write_text(text)
    assert read_recipe(sound).name == "no"


def test_a_chat_template_beside_the_recipe_is_the_text_that_every_stage_gets_and_that_travels_with_it(sound: Path):
    sound.write_text(sound.read_text("utf-8") + "chat_template: ./chat.jinja\n", "utf-8")
    last = len(sound.read_text("utf-8").splitlines())
    with refused("recipe.no-chat-template", f"line {last}, chat_template", kind=RecipeError):
        read_recipe(sound)
    (sound.parent / "chat.jinja").write_text("{{ messages[0]['content'] }}", "utf-8")
    recipe = read_recipe(sound)
    for stage in (recipe.cpt, recipe.preferences, recipe.rpo, recipe.evaluate):
        assert stage.chat_template == "{{ messages[0]['content'] }}"
    (sound.parent / "chat.jinja").unlink()  # as on the machine of a Job
    assert with_overrides(recipe, {"cpt.seed": 1}).rpo.chat_template == recipe.rpo.chat_template
