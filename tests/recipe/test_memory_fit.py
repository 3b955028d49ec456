"""What does not fit is told with changes that really make it fit."""

import pytest

from medllm.recipe.cost import best_memory
from medllm.recipe.estimate import Fit, Sized, fit, too_much
from medllm.recipe.hardware import KNOWN, Machine, machine
from medllm.recipe.settings import Cpt, Lora, Training

LARGE = KNOWN["Qwen/Qwen2.5-72B"]
LORA = Lora(r=64, lora_alpha=128)
CPT = Cpt(lora=LORA, max_steps=1)


def named(name: str) -> Machine:
    found = machine(name)
    assert found
    return found


def judged(settings: Training, on: str) -> Fit:
    def need(changed: Sized, other: Machine):
        assert isinstance(changed, Training)
        return best_memory(LARGE, changed, LORA, other)

    return fit(settings, named(on), need)


def test_the_papers_machine_holds_the_papers_training():
    found = judged(CPT.model_copy(update={"quantization": "nf4"}), "a100x4")
    assert found.fits
    assert not found.memory.sharded


def test_a_72b_in_16_bit_does_not_fit_one_card_and_the_mends_do():
    found = judged(CPT, "a100x1")
    assert not found.fits
    # four cards would hold it divided, and each must hold all of it first
    assert found.mends == ("set `quantization: nf4`",)
    assert not judged(CPT, "a100x4").fits
    assert judged(CPT.model_copy(update={"quantization": "nf4"}), "a100x1").fits
    words = too_much("cpt", found, named("a100x1"))
    assert words == "cpt: needs about 173 GB a GPU, `a100x1` has 80: set `quantization: nf4`."


@pytest.mark.parametrize("on", ["a10gx4", "l40sx8", "l4x4"])
def test_cards_that_cannot_hold_the_base_while_it_is_loaded_are_not_called_large_enough(on: str):
    base = LARGE if on != "l40sx8" else KNOWN["Qwen/Qwen2.5-32B"]
    settings = CPT if on == "l40sx8" else CPT.model_copy(update={"quantization": "nf4"})

    def need(changed: Sized, other: Machine):
        assert isinstance(changed, Training)
        return best_memory(base, changed, LORA, other)

    found = fit(settings, named(on), need)
    assert found.memory.sharded
    assert found.memory.total < named(on).gpu.memory_gb * 1e9 < found.memory.loading
    assert not found.fits
    assert "GB a GPU while the base is loaded" in too_much("cpt", found, named(on))


def test_what_the_recipe_says_of_dividing_is_what_is_counted():
    small = KNOWN["Qwen/Qwen2.5-7B"]
    for name, sharded in (("ddp", False), ("fsdp2", True), (None, False)):
        settings = CPT.model_copy(update={"accelerate": name})
        assert best_memory(small, settings, LORA, named("a100x4")).sharded is sharded
    whole = CPT.model_copy(update={"accelerate": "ddp"})
    assert not best_memory(KNOWN["Qwen/Qwen2.5-32B"], whole, LORA, named("a100x4")).sharded


def test_shortening_is_proposed_where_it_helps():
    long = CPT.model_copy(update={"quantization": "nf4", "max_length": 32768})
    found = judged(long, "a100x1")
    shorter = next(mend for mend in found.mends if mend.startswith("shorten"))
    length = int(shorter.split()[-1])
    assert judged(long.model_copy(update={"max_length": length}), "a100x1").fits
    assert not judged(long.model_copy(update={"max_length": 2 * length}), "a100x1").fits


def test_for_a_batch_too_wide_the_advice_is_to_split_it():
    wide = CPT.model_copy(update={"quantization": "nf4", "per_device_train_batch_size": 16})
    assert "set `per_device_train_batch_size: 1`" in judged(wide, "a100x1").mends


def test_for_kept_activations_the_advice_is_to_compute_them_twice():
    kept = CPT.model_copy(update={"quantization": "nf4", "gradient_checkpointing": False})
    assert "set `gradient_checkpointing: true`" in judged(kept, "a100x1").mends


def test_a_processor_without_gpu_is_not_judged():
    assert judged(CPT, "cpu").fits


@pytest.mark.parametrize(
    "name", ["a100", "a100x1", "a100-large", "h200", "l4x4", "a10g-largex2", "cpu-basic", "h100x8"]
)
def test_machines_go_by_our_name_and_by_the_hubs(name: str):
    assert machine(name)


@pytest.mark.parametrize("name", ["", "x4", "b9000x1", "a100x0", "a100x", "A100x4"])
def test_other_names_are_not_guessed_at(name: str):
    assert machine(name) is None
