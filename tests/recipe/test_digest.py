"""What goes into a digest: every setting that decides the result, and none that does not."""

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
