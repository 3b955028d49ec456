"""A small sound recipe that the tests of this folder bend."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import read_recipe

SOUND = """\
name: small
base: Qwen/Qwen2.5-0.5B@main
namespace: me
cutoff: 2017-12-31
corpus:
  data: [me/texts@v1, {source: me/explanations@v1, exam: own}]
  held_out: [igakuqa, medqa-ja]
cpt:
  lora: {r: 64, lora_alpha: 128}
  num_train_epochs: 2
  learning_rate: 1e-4
preferences:
  model: cpt
  data: me/explanations@v1
rpo:
  model: cpt
  rpo_alpha: 10
  num_train_epochs: 1
merge: {model: rpo}
evaluate:
  models: {base: base, cpt: cpt, final: rpo}
  benchmarks: [igakuqa, medqa-ja]
ablations:
  cpt-dpo: {rpo.rpo_alpha: 0}
"""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A recipe without fault, as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(SOUND, encoding="utf-8")
    return path


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Replace one piece of the sound recipe and return what the reader says to it."""
    monkeypatch.chdir(tmp_path)

    def refuse(old: str, new: str) -> str:
        assert old in SOUND
        Path("small.yaml").write_text(SOUND.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(RecipeError) as fault:
            read_recipe(Path("small.yaml"))
        return str(fault.value)

    return refuse
