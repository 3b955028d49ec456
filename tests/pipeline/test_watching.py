"""People see how much of the sources has come, then how much of the training lies behind, and nothing made up."""

import json
import time
from types import SimpleNamespace

from medllm.pipeline import watching
from medllm.pipeline.watching import arriving, watched
from medllm.recipe.settings import Cpt


def test_what_has_come_of_the_sources_is_told_while_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "EVERY", 0.01)
    (tmp_path / "here-before").write_bytes(b"x" * 5_000_000)
    said = []
    with arriving(SimpleNamespace(stage="cpt"), [tmp_path, tmp_path / "not-there-yet"], said.append):
        time.sleep(0.05)
        assert said == []
        (tmp_path / "weights.incomplete").write_bytes(b"x" * 2_000_000)
        (tmp_path / "link").symlink_to("here-before")
        deadline = time.monotonic() + 30
        while "cpt: 2.0 MB of its sources pulled" not in said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[-1] == "cpt: 2.0 MB of its sources pulled"


def test_a_training_tells_its_share_and_loss_from_the_last_whole_line_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "EVERY", 0.01)
    log = tmp_path / "training" / "log.jsonl"
    log.parent.mkdir()
    log.write_text(json.dumps({"step": 4, "loss": 6.609049987792969}) + '\n{"step": 5, "lo')
    item = SimpleNamespace(stage="cpt", settings=Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=10))
    said = []
    with watched(item, tmp_path, said.append):
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said[-1] == "cpt: 40 % done, loss 6.609", "what is left is not known before something was gained"
        log.write_text(json.dumps({"step": 9, "loss": "6.5"}) + "\n")
        while "90 %" not in said[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[-1].startswith("cpt: 90 % done, loss 6.500, ") and said[-1].endswith(" s left")
