"""A stage made here: one process for each GPU there is, and nothing of its own among our results."""

import json
from pathlib import Path

import yaml

from medllm.launch.local import maker_of, on_all_devices
from medllm.recipe.settings import Cpt, Merge
from medllm.training.devices import config
from medllm.weights.resources import VisibleGpu
from tests.refusals import refused


def see(monkeypatch, *gigabytes):
    """GPUs of these sizes, as torch would list them."""
    gpus = [VisibleGpu("NVIDIA A100", int(size * 1e9)) for size in gigabytes]
    monkeypatch.setattr("medllm.weights.resources.visible_gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_training_gets_a_process_for_each_gpu_and_keeps_a_config_of_its_own(monkeypatch, tmp_path):
    see(monkeypatch, 80, 80, 80, 80)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1)
    config = yaml.safe_load(Path(on_all_devices(settings, tmp_path / "making").accelerate).read_text())
    assert (config["distributed_type"], config["num_processes"]) == ("MULTI_GPU", 4)
    own = settings.model_copy(update={"accelerate": "own.yaml"})
    assert on_all_devices(own, tmp_path / "making") is own
    merge = Merge(model="rpo")
    assert on_all_devices(merge, tmp_path / "making") is merge
    see(monkeypatch, 80)
    assert on_all_devices(settings, tmp_path / "making") is settings


def test_what_a_stage_prints_does_not_stand_among_our_results(monkeypatch, tmp_path, capsys):
    def loud(settings, sources, out):
        print("{'train_loss': 3.2}")

    monkeypatch.setattr(
        "medllm.launch.local.import_module", lambda name: type("Stage", (), {"make": staticmethod(loud)})
    )
    maker_of("merge")(Merge(model="rpo"), {}, tmp_path / "making")
    values = capsys.readouterr()
    assert values.out == ""
    assert "train_loss" in values.err


def test_three_gpus_and_a_batch_of_eight_train_on_two_and_say_so_before_anything_is_loaded(
    monkeypatch, tmp_path, capsys
):
    see(monkeypatch, 80, 80, 80)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, total_batch_size=8)
    found = on_all_devices(settings, tmp_path / "making", stage="cpt")
    assert yaml.safe_load(Path(found.accelerate).read_text())["num_processes"] == 2
    assert "cpt: 3 GPUs are visible, and 8 rows (total_batch_size) do not divide over 3" in capsys.readouterr().err


def test_run_on_bounds_the_gpus_that_are_taken_and_one_of_several_is_the_only_one_seen(monkeypatch, tmp_path, capsys):
    see(monkeypatch, 80, 80, 80, 80)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, total_batch_size=8)
    two = on_all_devices(settings.model_copy(update={"run_on": "a100x2"}), tmp_path / "making")
    assert yaml.safe_load(Path(two.accelerate).read_text())["num_processes"] == 2
    assert "run_on: a100x2 asks for 2: 2 are used" in capsys.readouterr().err
    one = on_all_devices(settings.model_copy(update={"run_on": "a100"}), tmp_path / "making")
    values = yaml.safe_load(Path(one.accelerate).read_text())
    assert (values["distributed_type"], values["num_processes"], values["gpu_ids"]) == ("NO", 1, "0")


def test_one_of_the_gpus_that_were_given_to_this_process_is_taken_and_not_another_users(monkeypatch, tmp_path):
    see(monkeypatch, 80, 80)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, run_on="a100")
    for given, first in (("4,5", "4"), ("GPU-aa, GPU-bb", "GPU-aa")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        file = Path(on_all_devices(settings, tmp_path / "making").accelerate)
        assert yaml.safe_load(file.read_text())["gpu_ids"] == first
        assert environment_of(file)["CUDA_VISIBLE_DEVICES"] == first, "what accelerate makes of it"


def environment_of(file):
    """The variables that accelerate gives the one process of this configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    arguments, _, _ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
    )
    return prepare_simple_launcher_cmd_env(arguments)[1]


def test_fsdp2_is_a_word_of_the_recipe_and_one_gpu_needs_no_launcher(monkeypatch, tmp_path):
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, accelerate="fsdp2")
    see(monkeypatch, 80, 80)
    values = yaml.safe_load(Path(on_all_devices(settings, tmp_path / "making").accelerate).read_text())
    assert (values["distributed_type"], values["fsdp_config"]["fsdp_version"], values["num_processes"]) == (
        "FSDP",
        2,
        2,
    )
    for gpus in ((80,), ()):
        see(monkeypatch, *gpus)
        assert on_all_devices(settings, tmp_path / "making").accelerate is None


def test_accelerate_reads_what_we_write_for_every_number_of_gpus_and_nodes(monkeypatch, tmp_path):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    for gpus, nodes, name in ((1, 1, "ddp"), (2, 1, "ddp"), (4, 2, "ddp"), (4, 1, "fsdp2"), (8, 2, "fsdp2")):
        settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, total_batch_size=64, accelerate=name)
        path = tmp_path / "accelerate.yaml"
        path.write_text(yaml.safe_dump(config(settings, gpus, nodes, gpus=True)))
        values = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
        known = set(vars(values))
        arguments, defaults, _ = _validate_launch_command(values)
        assert set(getattr(defaults, "fsdp_config", {})) <= known
        assert (arguments.num_processes, arguments.num_machines) == (gpus * nodes, nodes)
        assert (arguments.use_fsdp, arguments.multi_gpu) == (name == "fsdp2", name == "ddp" and gpus * nodes > 1)


def test_a_config_lies_beside_the_recipe(tmp_path):
    (tmp_path / "own.yaml").write_text("num_processes: 2\n")
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, accelerate="own.yaml")
    assert on_all_devices(settings, tmp_path / "making", folder=tmp_path).accelerate == str(tmp_path / "own.yaml")


def test_a_gpu_that_cannot_hold_the_base_is_named_with_both_numbers(monkeypatch, tmp_path):
    base = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    base |= {"intermediate_size": 29568, "vocab_size": 152064, "model_type": "qwen2", "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(base))
    see(monkeypatch, 80, 24)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, total_batch_size=8, quantization="nf4")
    with refused("weights.gpu-too-small", "cpt", "GPU 1 (NVIDIA A100)", "24 GB", "45 GB"):
        on_all_devices(settings, tmp_path / "making", stage="cpt", base=tmp_path)
    see(monkeypatch, 48, 48)
    assert on_all_devices(settings, tmp_path / "making", stage="cpt", base=tmp_path)
    # FSDP2 keeps the whole base until this GPU's half stands beside it
    divided = settings.model_copy(update={"accelerate": "fsdp2"})
    with refused("weights.gpu-too-small", "cpt", "GPU 0 (NVIDIA A100)", "48 GB", "66 GB"):
        on_all_devices(divided, tmp_path / "making", stage="cpt", base=tmp_path)


def test_a_batch_that_nothing_divides_is_refused(monkeypatch, tmp_path):
    see(monkeypatch, 80, 80)
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1, total_batch_size=7, per_device_train_batch_size=2)
    with refused("recipe.batch-not-divisible", "`total_batch_size` 7", "`per_device_train_batch_size` 2"):
        on_all_devices(settings, tmp_path / "making", stage="cpt")
