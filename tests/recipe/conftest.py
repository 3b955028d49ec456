"""A small sound recipe that the tests of this folder bend."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medllm.errors import MedllmError
from medllm.recipe import Recipe, read_recipe

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
def read_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Recipe]:
    """Replace one piece of the sound recipe and read it, as `small.yaml`."""
    monkeypatch.chdir(tmp_path)

    def read(old: str, new: str) -> Recipe:
        assert old in SOUND
        Path("small.yaml").write_text(SOUND.replace(old, new, 1), encoding="utf-8")
        return read_recipe(Path("small.yaml"))

    return read


def faults_in(error: MedllmError) -> list[tuple[str, str]]:
    """The place (with its line) and the code of each fault of an error with several."""
    lines = [line.strip() for line in str(error).splitlines() if line.startswith("  ")]
    return [(line.split(":")[0], line.rpartition(" ")[2].strip("[]")) for line in lines]
