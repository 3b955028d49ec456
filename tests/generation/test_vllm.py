"""Our own vLLM through its life: each fault of a server becomes one error, and no process outlives the run."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from medllm.generation import vllm_server
from medllm.generation.engine.choice import open_generator
from medllm.generation.factory import OnDemand, make_generators
from medllm.generation.serving import serving_of
from medllm.generation.types import Request
from medllm.generation.vllm import OneServer, VllmGenerator, VllmOrHere
from medllm.recipe.servers import VllmOptions
from medllm.recipe.settings import Evaluate, Preferences
from medllm.stages import evaluate, preferences
from tests import tiny
from tests.generation.fake_vllm import write_fake_vllm
from tests.refusals import refused


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base = tiny.make_base(folder / "base")
    return base, {name: tiny.make_adapter(folder / name, base, seed=n) for n, name in enumerate(("cpt", "final"))}


class Fake:
    """The fake program of one test, and what it noted."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.notes, self.monkeypatch = folder / "notes", monkeypatch
        self.notes.touch()
        monkeypatch.setenv("MEDLLM_VLLM", str(write_fake_vllm(folder / "program")))
        monkeypatch.setenv("FAKE_NOTES", str(self.notes))
        self.fault("")

    def fault(self, name: str) -> None:
        self.monkeypatch.setenv("FAKE_FAULT", name)

    def noted(self, kind: str) -> list:
        lines = [json.loads(line) for line in self.notes.read_text("utf-8").splitlines()]
        return [what for known, what in lines if known == kind]

    @property
    def left(self) -> list[int]:
        """The processes that it started and that still run."""
        pids = [start["pid"] for start in self.noted("start")] + self.noted("child")
        return [pid for pid in pids if runs(pid)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def fake(tmp_path, monkeypatch):
    found = Fake(tmp_path, monkeypatch)
    yield found
    end = time.monotonic() + 5
    while found.left and time.monotonic() < end:
        time.sleep(0.02)
    assert found.left == [], "a server outlived its run"


@pytest.fixture
def make(folders):
    made = []

    def open_one(adapters=folders[1], base=folders[0], one=None, **more):
        options = VllmOptions(**more.pop("options", {}))
        serving = serving_of(base, adapters, dtype="float32", quantization="none", options=options)
        made.append(VllmGenerator(serving, one or OneServer(), **more))
        return made[-1]

    yield open_one
    for generator in made:
        generator.release()


def requests(models=("base", "cpt", "final"), count=4, **changed):
    options = {"max_new_tokens": 6, **changed}
    return [
        Request(key=f"{model} {number}", model=model, text=f"問題{number}: 発熱。", **options)
        for model in models
        for number in range(count)
    ]


@pytest.mark.parametrize("fault", ["", "slow start", "port taken"])
def test_a_server_answers_for_the_base_and_each_adapter_and_ends_with_its_release(fake, make, fault, capsys):
    fake.fault(fault)
    generator = make()
    replies = {reply.key: reply for reply in generator.generate(requests())}
    assert len(replies) == 12 and {reply.completion_tokens for reply in replies.values()} == {6}
    assert len({replies[f"{model} 0"].text for model in ("base", "cpt", "final")}) == 3
    assert generator.engine == "vllm 0.32.0" and "engine: vllm 0.32.0 for base, cpt, final" in capsys.readouterr().err
    assert len(fake.noted("start")) == (3 if fault == "port taken" else 1)
    assert len(fake.left) == 1
    generator.release()
    assert fake.left == []


def test_the_key_is_in_no_process_list_and_in_no_error(fake, make):
    generator = make()
    list(generator.generate(requests(count=1)))
    (start,) = fake.noted("start")
    lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert any(b"--served-model-name" in words for words in lists)
    assert not any(start["key"].encode() in words for words in lists)
    generator.release()
    fake.fault("dies at start")
    with refused("generation.vllm-ended", "***") as caught:
        list(generator.generate(requests(count=1)))
    assert fake.noted("start")[-1]["key"] not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "code", "value"),
    [
        ("dies at start", "generation.vllm-ended", "the wheel does not fit"),
        ("engine dies at start", "generation.vllm-ended", "ValueError: the part does not fit"),
        ("unknown model", "generation.vllm-unknown-model", "NewForCausalLM"),
        ("idle adapter", "generation.vllm-adapter-idle", "cpt"),
        ("no end", "generation.vllm-no-end", "finish_reason"),
        ("lacks a model", "generation.vllm-model-missing", "final"),
        ("never ready", "generation.vllm-too-slow", "vllm.start_timeout"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_error_and_is_gone(fake, make, monkeypatch, fault, code, value):
    monkeypatch.setattr(vllm_server, "GRACE", 0.3)
    fake.fault(fault)
    generator = make(options={"start_timeout": 0.7 if fault == "never ready" else 60})
    with refused(code, value):
        list(generator.generate(requests(count=1)))
    assert fake.left == []


@pytest.mark.slow
def test_a_server_that_ignores_sigterm_is_killed_with_all_that_it_started(fake, make):
    fake.fault("ignores SIGTERM")
    generator = make()
    list(generator.generate(requests(count=1)))
    assert len(fake.left) == 2
    generator.release()
    assert fake.left == []


KILLED = """
import sys, time
from pathlib import Path
from medllm.generation.serving import serving_of
from medllm.generation.vllm import OneServer, VllmGenerator
from medllm.generation.types import Request
from medllm.recipe.servers import VllmOptions

serving = serving_of(Path(sys.argv[1]), {}, dtype="float32", quantization="none", options=VllmOptions())
list(VllmGenerator(serving, OneServer()).generate([Request(key="a", text="b", max_new_tokens=2)]))
print("answered", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_server(fake, folders):
    fake.fault("ignores SIGTERM")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-W", "ignore", "-c", KILLED, str(folders[0])]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
    assert run.stdout.readline() == b"answered\n"
    assert len(fake.left) == 2
    run.kill()
    run.wait()
    run.stdout.close()
    end = time.monotonic() + 60
    while fake.left:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_that_dies_half_way_is_named_with_its_last_lines(fake, make):
    fake.fault("dies half-way")
    replies = []
    with refused("generation.vllm-ended", "the engine died"):
        for reply in make(num_concurrent=2).generate(requests(count=20)):
            replies.append(reply)
    assert 0 < len(replies) <= 20


@pytest.mark.parametrize(("fault", "gpus", "mixes"), [("", 1, True), ("mixes rows", 1, False), ("", 0, False)])
def test_base_and_adapters_are_asked_together_only_where_a_check_proves_that_right(fake, make, fault, gpus, mixes):
    fake.fault(fault)
    generator = make(num_concurrent=12)
    generator.serving = replace(generator.serving, gpus=gpus)
    replies = {reply.key: reply for reply in generator.generate(requests(models=("final", "base", "cpt")))}
    assert len({replies[f"{model} 0"].text for model in ("base", "cpt", "final")}) == 3
    with generator.server.of(generator, 1) as server:
        assert server.mixes is mixes
    if not mixes:
        assert [model for model, _ in fake.noted("asked")[:4]] == ["base"] * 4


def test_two_bases_are_served_one_after_the_other(fake, make, tmp_path):
    one = OneServer()
    first, second = make(one=one), make(adapters={}, base=tiny.make_base(tmp_path / "other", seed=1), one=one)
    list(first.generate(requests(count=1)))
    list(second.generate(requests(models=("base",), count=1)))
    assert len(fake.noted("start")) == 2 and len(fake.left) == 1
    first.release()
    assert len(fake.left) == 1, "the second's server is not the first's to end"


def test_a_longer_request_starts_a_server_with_more_room_and_one_that_never_fits_is_reported(fake, make, tmp_path):
    base = tiny.make_base(tmp_path / "long", max_position_embeddings=9000)
    generator = make(adapters={}, base=base)
    list(generator.generate(requests(models=("base",), count=1)))
    list(generator.generate(requests(models=("base",), count=1, max_new_tokens=4100)))
    (reply,) = generator.generate(requests(models=("base",), count=1, max_new_tokens=9000))
    assert reply.finish_reason == "too_long"
    lengths = [start["words"][start["words"].index("--max-model-len") + 1] for start in fake.noted("start")]
    assert lengths == ["4096", "4352"]


def test_a_mark_in_a_question_is_sent_as_text(fake, make):
    generator = make(adapters={})
    list(generator.generate([Request(key="a", text="発熱<|im_end|>", max_new_tokens=2)]))
    ((_, tokens),) = fake.noted("asked")
    assert 2 not in tokens and generator.tokenizer.decode(tokens) == "発熱<|im_end|>"


def test_a_version_that_the_recipe_fixes_is_kept(fake, make):
    assert list(make(engine="vllm==0.32.0").generate(requests(count=1)))
    with refused("generation.vllm-other-version", "0.33.0", "0.32.0"):
        list(make(engine="vllm==0.33.0").generate(requests(count=1)))


def test_auto_answers_here_where_vllm_does_not_know_the_model_and_reports_it(fake, make, folders, capsys):
    fake.fault("unknown model")
    here = OnDemand(lambda: open_generator("auto", folders[0], folders[1], dtype="float32"))
    generator = VllmOrHere(make(), here)
    assert generator.choose() == generator.engine == f"local {version('medllm')}"
    assert len(list(generator.generate(requests()))) == 12
    assert len(list(generator.generate(requests()))) == 12
    assert len(fake.noted("start")) == 1, "it is not tried again"
    written = capsys.readouterr().err
    assert "engine: not vllm" in written and "NewForCausalLM" in written and "engine: local for base" in written


def test_auto_names_vllm_and_its_version_where_it_answers(fake, make):
    generator = VllmOrHere(make(), OnDemand(lambda: 1 / 0))
    assert generator.choose() == "vllm 0.32.0"
    assert list(generator.generate(requests(count=1))) and generator.engine == "vllm 0.32.0"
    assert len(fake.noted("start")) == 1, "the server that was started to choose answers"


def test_models_of_an_evaluation_share_the_server_of_their_base(fake, folders):
    base, adapters = folders
    sources = {"base": base, "cpt": adapters["cpt"], "rpo": adapters["final"]}
    made = make_generators({"b": "base", "c": "cpt", "f": "rpo"}, sources, engine="vllm", dtype="float32")
    assert {name: known for name, (_, known) in made.items()} == {"b": "base", "c": "c", "f": "f"}
    assert len({id(generator) for generator, _ in made.values()}) == 1
    assert made["b"][0].num_concurrent == 256


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exams")
    base, adapters = folders
    exams = {"./past": tiny.make_exam(folder / "past"), "own": tiny.make_exam(folder / "own", 14, first="2019-02-09")}
    return {"base": base, "cpt": adapters["cpt"], "rpo": adapters["final"], **exams}


def test_a_stage_whose_server_died_goes_on_with_what_is_recorded(fake, sources, tmp_path):
    settings = Evaluate(
        models={"base": "base", "cpt": "cpt", "final": "rpo"},
        benchmarks=("own",),
        shots=0,
        engine="vllm",
        dtype="float32",
        num_concurrent=4,
        max_new_tokens={"plain": 4, "explain": 8},
    )
    fake.fault("dies half-way")
    with refused("generation.vllm-ended", "the engine died"):
        evaluate.make(settings, sources, tmp_path / "out")
    fake.fault("")
    evaluate.make(settings, sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["replies"] == 84
    # What was answered and not yet written down when the server died may be asked once more.
    assert 84 <= len(fake.noted("asked")) <= 84 + 20
    assert fake.left == []


def test_preferences_are_sampled_by_the_adapter_that_the_server_holds(fake, sources, tmp_path):
    settings = Preferences(
        model="cpt", data=[{"source": "./past", "exam": "own"}], cutoff="2017-12-31", shots=0, samples=2,
        engine="vllm", dtype="float32", max_new_tokens=4,
    )  # fmt: skip
    with refused("preferences.no-pair"):  # what the fake writes is no answer
        preferences.make(settings, sources, tmp_path / "out")
    assert [model for model, _ in fake.noted("asked")] == ["model"] * 24
    assert fake.left == []
