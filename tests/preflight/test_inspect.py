"""Models before the work: each kind of folder that cannot be loaded is refused, by what loading itself uses."""

import json
import shutil
from pathlib import Path

import pytest

from medllm.errors import MedllmError
from medllm.weights.load import load_base
from medllm.weights.loadable import adapter_errors, model_errors
from tests import tiny
from tests.preflight.conftest import Ward


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file; None removes a key."""
    changed = {**json.loads(path.read_text("utf-8")), **values}
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}), "utf-8")


def cut_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN = {
    "a type that transformers lacks": lambda folder: change(folder / "config.json", model_type="of_tomorrow"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "pickled weights": pickled,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "cut off": cut_off,
    "cut off in its header": lambda folder: (folder / "model.safetensors").write_bytes(b"\x40" + 7 * b"\0" + b'{"a"'),
    "header of another kind": lambda folder: (folder / "model.safetensors").write_bytes(b"\x02" + 7 * b"\0" + b"[]"),
    "no model type": lambda folder: change(folder / "config.json", model_type=None),
    "tokenizer cut off": lambda folder: (folder / "tokenizer.json").write_text('{"model": {'),
    "tokenizer of another kind": lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}'),
    "tokenizer too large": lambda folder: change(folder / "config.json", vocab_size=300),
    "no end of text": lambda folder: change(folder / "tokenizer_config.json", eos_token=None),
    "broken template": lambda folder: (folder / "chat_template.jinja").write_text("{% for m in %}"),
    "template in Shift_JIS": lambda folder: (folder / "chat_template.jinja").write_bytes("質問".encode("cp932")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny.make_base(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "base")


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN.keys())
def test_a_folder_that_cannot_be_loaded_is_refused_in_one_line_that_names_it(base: Path, break_it):
    assert model_errors(base) == []
    break_it(base)
    (error, *_) = model_errors(base)
    assert error.code.startswith("weights.")
    assert str(base) in str(error)
    assert "\n" not in str(error)
    with pytest.raises(MedllmError) as caught:
        load_base(base)
    assert str(caught.value) == str(error)


def test_a_model_that_transformers_does_not_know_may_be_asked_by_vllm_and_by_no_other(ward: Ward):
    other = shutil.copytree(ward.folder / "base", ward.folder / "other")
    change(other / "config.json", model_type="of_tomorrow")
    asked = {"evaluate__models": {"base": "base", "other": "./other"}}
    assert [one.place for one in ward.find(**asked)] == ["evaluate.models.other"]
    assert [ward.find(**asked, evaluate__engine=engine) for engine in ("auto", "vllm")] == [[], []]
    change(ward.folder / "base" / "config.json", model_type="of_tomorrow")
    assert [one.place for one in ward.find(**asked, evaluate__engine="auto")] == ["base"], "cpt trains it"


@pytest.mark.parametrize("stage", ["preferences", "evaluate"])
def test_chat_without_a_template_is_refused_by_check_where_a_model_of_this_machine_is_asked(ward: Ward, stage):
    chat = {f"{stage}__format": "chat"}
    assert (f"{stage}.format", "generation.no-chat-template") in ward.codes(**chat)
    assert ward.codes(**{f"{stage}__format": "auto"}) == []
    assert ward.codes(**chat, **{f"{stage}__engine": "http://127.0.0.1:8000/v1"}) == []
    (ward.folder / "base" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert ward.codes(**chat) == []


def test_check_refuses_the_base_of_a_recipe_and_a_model_that_is_only_asked(ward: Ward):
    shutil.copytree(ward.folder / "base", ward.folder / "other")
    pickled(ward.folder / "other")
    cut_off(ward.folder / "base")
    found = ward.find(evaluate__models={"base": "base", "other": "./other"})
    assert [one.place for one in found] == ["base", "evaluate.models.other"]
    assert "model.safetensors" in found[0].text


def test_an_adapter_of_another_base_is_refused(whole: Path, tmp_path: Path):
    other = tiny.make_base(tmp_path / "other", seed=5)
    adapter = tiny.make_adapter(tmp_path / "adapter", other)
    assert adapter_errors(adapter, other) == []
    (error,) = adapter_errors(adapter, whole)
    assert "trained" in str(error)


def test_a_chat_template_with_transformers_own_marks_is_valid(base: Path):
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    (base / "chat_template.jinja").write_text(template)
    assert model_errors(base) == []


def test_a_repository_without_safetensors_is_refused_before_its_weights_are_pulled(base: Path):
    (base / "model.safetensors").unlink()
    names = frozenset(path.name for path in base.iterdir())
    assert model_errors(base, names | {"model.safetensors"}) == []
    (error,) = model_errors(base, names | {"pytorch_model.bin"})
    assert error.code == "weights.incomplete-repository"


def test_a_library_for_curves_that_is_missing_is_named_unless_the_jobs_install_it(ward: Ward, monkeypatch):
    monkeypatch.setattr("medllm.training.devices.find_spec", lambda name: None)
    training = {"lora": {"r": 4, "lora_alpha": 8}, "max_steps": 2, "report_to": ["mlflow"]}
    fault = ("cpt.report_to", "training.no-tracker")
    assert fault in ward.codes(cpt=training)
    assert fault not in ward.codes(cpt=training, jobs={"packages": ["mlflow>=3"]})
    assert fault not in ward.codes(cpt={**training, "report_to": "none"})


def test_a_chat_template_of_the_recipe_is_for_a_base_without_one_and_is_jinja(ward: Ward):
    chat = {"preferences__format": "chat", "evaluate__format": "chat"}
    assert ward.codes(**chat, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}") == []
    broken = ward.codes(**chat, chat_template="{% for m in %}")
    assert broken == [("chat_template", "weights.broken-template")]
    (ward.folder / "base" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    found = ward.codes(**chat, chat_template="{{ messages }}")
    assert found == [("chat_template", "recipe.two-chat-templates")]


def test_a_chat_template_that_no_model_of_an_evaluation_needs_is_refused(ward: Ward):
    alone = {"base": None, "corpus": None, "preferences": None, "evaluate__models": {"own": "./base"}}
    given = {"evaluate__format": "chat", "chat_template": "{{ messages }}"}
    assert ward.codes(**alone, **given) == []
    (ward.folder / "base" / "chat_template.jinja").write_text("{{ messages }}")
    assert ward.codes(**alone, **given) == [("chat_template", "recipe.two-chat-templates")]


def test_pairs_of_thinking_by_a_template_that_drops_it_are_refused_before_any_stage(ward: Ward):
    thinks = {"preferences__prompt": "think", "preferences__format": "chat", "preferences__pairs": ["chosen>rejected"]}
    for family, codes in (("qwen2_5", [("preferences.prompt", "weights.template-drops-thinking")]), ("qwen3", [])):
        (ward.folder / "base" / "chat_template.jinja").write_text(tiny.published_template(family), "utf-8")
        assert ward.codes(**thinks) == codes
        assert ward.codes(**thinks | {"preferences__prompt": "explain"}) == []


def test_the_converter_of_gguf_is_asked_for_before_a_run_unless_another_machine_merges(ward: Ward, monkeypatch):
    monkeypatch.setenv("MEDLLM_GGUF", str(ward.folder))
    merge = {"model": "cpt", "gguf": "q8_0"}
    training = {"cpt": {"lora": {"r": 4, "lora_alpha": 8}, "max_steps": 2}}
    fault = ("merge.gguf", "weights.no-converter")
    assert fault in ward.codes(**training, merge=merge)
    assert fault not in ward.codes(**training, merge={**merge, "run_on": "cpu-upgrade"})
