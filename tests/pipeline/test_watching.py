"""While sources are pulled, people see how much of them has come; what lay here before is not told as progress."""

import time
from types import SimpleNamespace

from medllm.pipeline import watching
from medllm.pipeline.watching import arriving


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
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[-1] == "cpt: 2.0 MB of its sources pulled"
