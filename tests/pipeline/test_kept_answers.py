"""Nothing is asked twice: a fake server counts what evaluations ask as they grow, here and on a fresh machine."""

import json
import shutil

import pytest
import yaml

from medllm.cli.console import Reporter, confirm_plan
from medllm.exam.record import read_records
from medllm.hub import connect
from medllm.launch.local import launch
from medllm.pipeline import BuildContext, make_plan
from medllm.pipeline import run as run_plan
from medllm.recipe import read_recipe
from tests.generation.serving import JsonHandler, JsonServer
from tests.pipeline.whole import question
from tests.refusals import refused


class Handler(JsonHandler):
    def do_POST(self):
        body = self.read()
        self.server.asked.append(body["model"])
        choice = {"finish_reason": self.server.reason, "message": {"content": f"答え: a ({body['model']})"}}
        self.send(200, {"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 7}})


class Server(JsonServer):
    """Answers every question with `a`, and remembers which model was asked."""

    handler = Handler

    def __init__(self, reason="stop"):
        self.asked, self.reason = [], reason
        super().__init__()

    def new(self):
        """Return who was asked since the last look."""
        asked, self.asked = self.asked, []
        return sorted(asked)


@pytest.fixture
def server():
    servers = [Server(), Server()]
    yield servers
    for one in servers:
        one.close()


@pytest.fixture
def evaluate(tmp_path, server, monkeypatch):
    """Run an evaluation of these models; nothing may be replaced without a yes."""
    (tmp_path / "world").mkdir()
    rows = [question(f"w{number}", 2020) for number in range(30)]
    (tmp_path / "world" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def run(*models, yes=False, port=None, fresh=False, request=None, **settings):
        if fresh:
            shutil.rmtree(tmp_path / "runs", ignore_errors=True)
            monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / f"answers-{len(list(tmp_path.iterdir()))}"))
        url = f"http://127.0.0.1:{port or server[0].server_address[1]}/v1"
        asked = {name: {"api": url, "model": f"served-{name}", "request": request or {}} for name in models}
        values = {"name": "daily", "namespace": "clinic", "base": "./base", "cutoff": "2017-12-31"}
        values["exams"] = {"world": {"source": "./world", "first": "2020-01-01"}}
        values["evaluate"] = {"models": asked, "benchmarks": ["world"], "shots": 0, "limit": 10, **settings}
        (tmp_path / "base").mkdir(exist_ok=True)
        (tmp_path / "daily.yaml").write_text(yaml.safe_dump(values), "utf-8")
        with connect(str(tmp_path / "hub"), "clinic") as hub:
            plan = make_plan(read_recipe(tmp_path / "daily.yaml", {}), hub)
            reporter = Reporter(lambda text: None, lambda text: None, lambda question: False)
            bench = BuildContext(hub, tmp_path / "runs", lambda text: None)
            made = run_plan(plan, bench, launch, confirm_plan(reporter, hub, tmp_path / "runs", yes=yes, restore=False))
            return read_records(hub.pull(made["evaluate"]))

    return run


@pytest.mark.slow
def test_a_growing_evaluation_asks_only_its_new_cells_and_needs_no_yes(evaluate, server):
    first = evaluate("a")
    assert server[0].new() == ["served-a"] * 20, "10 questions, two prompts"
    second = evaluate("a", "b")
    assert server[0].new() == ["served-b"] * 20
    assert [record for record in second if record.model == "a"] == first
    evaluate("a", "b", limit=11)
    assert server[0].new() == ["served-a"] * 2 + ["served-b"] * 2
    evaluate("a", "b", limit=11, num_concurrent=2, batch_size=1)
    assert server[0].new() == [], "nothing of that alters a reply: the result exists"


@pytest.mark.slow
def test_a_fresh_machine_takes_the_answers_of_every_version_from_the_hub(evaluate, server):
    evaluate("a", "b")
    evaluate("a", yes=True)
    server[0].new()
    evaluate("a", "b", "c", fresh=True)
    assert server[0].new() == ["served-c"] * 20, "b is only in an older version"


@pytest.mark.slow
def test_another_address_asks_nothing_and_another_option_everything(evaluate, server):
    evaluate("a")
    evaluate("a", limit=11, port=server[1].server_address[1])
    assert len(server[0].new()) == 20 and len(server[1].new()) == 2
    evaluate("a", request={"reasoning_effort": "low"}, yes=True)
    assert len(server[0].new()) == 20


@pytest.mark.slow
def test_a_yes_is_needed_where_an_answer_vanishes(evaluate, server):
    evaluate("a", "b")
    with refused("command.would-rebuild", "clinic/daily-evaluate"):
        evaluate("a", "c")
    with refused("command.would-rebuild"):
        evaluate("a", "b", limit=9)
    with refused("command.would-rebuild"):
        evaluate("a", "b", prompts=["plain"])
    assert len(server[0].new()) == 40


@pytest.mark.slow
def test_what_a_server_refused_is_marked_and_asked_again(evaluate, server):
    server[0].reason = "content_filter"
    assert {record.finish_reason for record in evaluate("a")} == {"refused"}
    server[0].reason = "stop"
    assert {record.finish_reason for record in evaluate("a", limit=11)} == {"stop"}
    assert len(server[0].new()) == 20 + 22
