"""What goes into a digest: every setting that decides the result, and none that does not."""

import json

from medllm.recipe import settings_for_digest
from medllm.recipe.settings import Cpt, Lora


def test_a_default_written_out_is_the_default():
    lora = Lora(r=4, lora_alpha=8)
    assert settings_for_digest(Cpt(lora=lora, warmup_ratio=0.03)) == settings_for_digest(Cpt(lora=lora))


def test_a_server_at_another_address_is_the_same_artifact():
    from medllm.recipe.base import settings_for_digest
    from medllm.recipe.settings import Evaluate

    def of(**changed):
        return settings_for_digest(Evaluate(models={"base": "base"}, benchmarks=("igakuqa",), **changed))

    here, there = (
        of(engine="http://10.0.0.1:8000/v1", num_concurrent=256),
        of(engine="https://gpu.example/v1", num_processes=4),
    )
    assert here == there != of(engine="local")
    assert of() == of(engine="local", num_concurrent=3, num_processes=2)


def test_the_engine_and_a_fixed_version_of_it_decide_the_artifact_and_how_its_server_runs_does_not():
    from medllm.recipe.base import settings_for_digest
    from medllm.recipe.settings import Preferences

    def of(engine, **changed):
        settings = Preferences(model="base", data="./past", engine=engine, **changed)
        return json.dumps(settings_for_digest(settings), sort_keys=True)

    engines = ("local", "transformers", "auto", "vllm", "vllm==0.32.0", "vllm==0.33.0", "http://127.0.0.1:1/v1")
    assert len({of(engine) for engine in engines}) == len(engines)
    assert of("vllm") == of("vllm", vllm={"tensor_parallel_size": 4, "gpu_memory_utilization": 0.5}, num_concurrent=9)


def test_keys_of_an_evaluation_and_a_chat_template_that_are_not_set_leave_a_digest_as_it_was():
    from medllm.recipe.settings import Preferences, Rpo
    from medllm.recipe.training import EVALUATION

    new = {*EVALUATION, "chat_template"}
    lora = Lora(r=4, lora_alpha=8)
    for settings in (Cpt(lora=lora), Rpo(model="cpt", rpo_alpha=1), Preferences(model="base", data="./past")):
        assert not new & settings_for_digest(settings).keys()
    held = Cpt(lora=lora, eval_strategy="steps", eval_steps=5, chat_template="{{ messages }}")
    assert new & settings_for_digest(held).keys() == {"eval_strategy", "eval_steps", "chat_template"}
