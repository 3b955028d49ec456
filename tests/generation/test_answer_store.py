"""Replies that are kept: found again by who answered and what was asked, whole after a kill, and never a refusal."""

import json
import multiprocessing
from types import SimpleNamespace

from medllm.generation.answer_store import Answerer, AnswerKey, AnswerStore
from medllm.generation.identity import files_digest
from medllm.generation.reply_log import KeptGenerator
from medllm.generation.types import Reply, Request

LOCAL = Answerer({"engine": "local", "files": ["1"]})
NAMED = {"model": "m", "request": {}}


AUTO = Answerer({"engine": "auto", "files": ["1"]})


class Counting:
    """Answers with the number of the call."""

    def __init__(self, engine="local 0.1.0", **reply):
        self.asked, self.engine = [], engine
        self.reply = {"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2, **reply}

    def generate(self, requests):
        for request in requests:
            self.asked.append(request.key)
            yield Reply(key=request.key, text=f"reply {len(self.asked)}", **self.reply)


def ask(store, generator, *requests, who=LOCAL):
    answering = {request.key: who for request in requests}
    return {reply.key: reply for reply in KeptGenerator(generator, store, answering).generate(requests)}


def request(key="q", text="Q", **changed):
    return Request(key=key, text=text, **{"max_new_tokens": 8, **changed})


def test_what_was_asked_once_is_not_asked_again_under_another_name(tmp_path):
    first, second = Counting(), Counting()
    one = ask(AnswerStore(tmp_path), first, request("a 1"))["a 1"]
    again = ask(AnswerStore(tmp_path), second, request("b 7"), request("c", "another"))
    assert first.asked == ["a 1"] and second.asked == ["c"]
    assert again["b 7"].text == one.text and again["b 7"].prompt_tokens == 3


def test_equal_requests_of_one_run_are_asked_once(tmp_path):
    generator = Counting()
    replies = ask(AnswerStore(tmp_path), generator, request("a"), request("b"))
    assert generator.asked == ["a"] and replies["a"].text == replies["b"].text == "reply 1"


class Choosing(Counting):
    """Takes an engine when it is asked for it, as `auto` does, and counts how often."""

    chosen = 0

    def choose(self):
        self.chosen += 1
        return self.engine


def test_auto_keeps_a_reply_under_the_engine_that_answered(tmp_path):
    store, first = AnswerStore(tmp_path), Choosing("local 0.1.0")
    reply = ask(store, first, request(), who=AUTO)["q"]
    assert reply.by == "local 0.1.0" and first.chosen == 1
    named, other = Counting(), Counting("transformers 5.23.0")
    assert ask(store, named, request(), who=LOCAL)["q"] == reply and named.asked == []
    ask(store, other, request(), who=Answerer({"engine": "transformers", "files": ["1"]}))
    assert other.asked == ["q"], "the reply of another engine"


def test_what_auto_chose_is_known_without_loading_the_model(tmp_path, monkeypatch):
    store = AnswerStore(tmp_path)
    ask(store, Choosing("transformers 5.23.0"), request(), who=AUTO)
    again = Choosing("transformers 5.23.0")
    assert ask(store, again, request(), who=AUTO)["q"].by == "transformers 5.23.0"
    assert (again.chosen, again.asked) == (0, [])
    monkeypatch.setattr("medllm.generation.reply_log.distributions", lambda **_: [SimpleNamespace(version="9.9")])
    newer = Choosing("local 9.9")
    ask(store, newer, request(), who=AUTO)
    assert (newer.chosen, newer.asked) == (1, ["q"]), "another version may choose otherwise"


def test_the_key_of_a_reply_names_its_engine_also_after_an_interruption(tmp_path):
    kept = KeptGenerator(Choosing(), AnswerStore(None), {"q": AUTO})
    reply = Reply(key="q", text="a", finish_reason="stop", prompt_tokens=1, completion_tokens=1, by="local 0.0.9")
    assert kept.key_of(request(), reply) == AnswerKey.of(request(), LOCAL)
    pinned = Answerer({"engine": "vllm==0.32.0", "files": ["1"]})
    assert pinned.by("vllm 0.32.0") == pinned, "a named engine stays as it is named"


def test_another_model_prompt_decoding_or_seed_is_another_answer():
    drawn = {"temperature": 0.5, "seed": 1}
    keys = [
        AnswerKey.of(request(), LOCAL),
        AnswerKey.of(request(), Answerer({"engine": "local", "files": ["2"]})),
        AnswerKey.of(request(text="R"), LOCAL),
        AnswerKey.of(request(messages=({"role": "user", "content": "Q"},)), LOCAL),
        AnswerKey.of(request(stop=("\n",)), LOCAL),
        AnswerKey.of(request(**drawn), LOCAL),
        AnswerKey.of(request(**{**drawn, "seed": 2}), LOCAL),
        AnswerKey.of(request(**drawn, top_p=0.9), LOCAL),
    ]
    assert len({(key.model, key.prompt) for key in keys}) == len(keys)
    assert AnswerKey.of(request(key="other", model="x", seed=9, shared=1), LOCAL) == keys[0], "greedy has no seed"


def test_a_reply_that_ended_by_itself_serves_with_more_room_and_one_that_was_cut_does_not(tmp_path):
    store = AnswerStore(tmp_path)
    ask(store, Counting(), request("ended"))
    ask(store, Counting(finish_reason="length", completion_tokens=8), request("cut", "long"))
    generator = Counting()
    ask(store, generator, request("ended", max_new_tokens=16), request("cut", "long", max_new_tokens=16))
    assert generator.asked == ["cut"]
    ask(store, generator, request("ended", max_new_tokens=3))
    assert generator.asked == ["cut"], "two tokens fit into three"
    ask(store, generator, request("ended", max_new_tokens=2))
    assert generator.asked == ["cut", "ended"], "whether it would end there is not known"


def test_a_reply_that_ended_in_a_loop_serves_with_more_room(tmp_path):
    store, generator = AnswerStore(tmp_path), Counting(finish_reason="repetition", completion_tokens=8)
    ask(store, generator, request("loop", max_new_tokens=16))
    ask(store, generator, request("loop", max_new_tokens=512))
    assert generator.asked == ["loop"]


def test_what_was_refused_or_did_not_fit_is_asked_again(tmp_path):
    for reason in ("refused", "too_long"):
        generator = Counting(finish_reason=reason)
        ask(AnswerStore(tmp_path), generator, request(text=reason))
        ask(AnswerStore(tmp_path), generator, request(text=reason))
        assert len(generator.asked) == 2


def test_a_server_that_moves_is_not_asked_again_but_two_servers_are_two_models(tmp_path):
    store = AnswerStore(tmp_path)
    here, there, third = (Answerer.behind(f"http://{name}/v1", NAMED) for name in ("a", "b", "c"))
    ask(store, Counting(), request("1"), request("2", "R"), who=here)
    moved = Counting()
    ask(store, moved, request("1"), request("3", "S"), who=there)
    ask(store, moved, request("1"), request("3", "S"), who=there)
    assert moved.asked == ["3"]
    both = Counting()
    one, two = request("one", "new"), request("two", "new")
    who = {"one": here, "two": there}
    replies = {reply.key: reply.text for reply in KeptGenerator(both, store, who).generate([one, two])}
    assert both.asked == ["one", "two"] and replies["one"] != replies["two"]
    again = {reply.key: reply.text for reply in KeptGenerator(both, store, who).generate([one, two])}
    assert again == replies and len(both.asked) == 2
    ask(store, both, request("1"), who=third)
    assert both.asked[2:] == ["1"], "which of the two it was is not known"


def test_a_line_that_a_kill_cut_off_takes_nothing_else_with_it(tmp_path):
    store = AnswerStore(tmp_path)
    ask(store, Counting(), request("1"), request("2", "最後"))
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().rstrip(b"\n")[:-40])
    generator = Counting()
    ask(store, generator, request("1"), request("2", "最後"), request("3", "S"))
    assert generator.asked == ["2", "3"]
    ask(store, generator, request("1"), request("2", "最後"), request("3", "S"))
    assert len(generator.asked) == 2


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path):
    forked = multiprocessing.get_context("fork")
    workers = [forked.Process(target=_write_many, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    generator = Counting()
    ask(AnswerStore(tmp_path), generator, *(request(f"{n} {i}", f"{n} {i}") for n in range(3) for i in range(40)))
    assert generator.asked == []


def _write_many(folder, number):
    for i in range(40):
        ask(AnswerStore(folder), Counting(), request("q", f"{number} {i}"))


def test_a_model_is_its_files_wherever_they_are_and_whatever_its_card_says(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "README.md").write_text(name)
    assert files_digest(tmp_path / "one") == files_digest(tmp_path / "two")
    files_digest.cache_clear()
    (tmp_path / "two" / "model.safetensors").write_bytes(b"others!")
    assert files_digest(tmp_path / "one") != files_digest(tmp_path / "two")


def test_no_store_asks_each_time(tmp_path):
    generator = Counting()
    for _ in range(2):
        ask(AnswerStore(None), generator, request())
    assert len(generator.asked) == 2


def test_a_record_that_names_a_path_as_its_key_writes_nothing(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"completion": "x", "finish_reason": "stop", "prompt_tokens": 1, "tokens": 1, "cost": 0.0}
    (tmp_path / "records").mkdir()
    table = pa.Table.from_pylist([{**row, "answer_key": "../../evil:0:1@local"}, {**row, "answer_key": None}])
    pq.write_table(table, tmp_path / "records" / "m.parquet")
    assert AnswerStore(tmp_path / "store").restore(tmp_path) == 0
    assert not (tmp_path / "store").exists()


def test_replies_are_taken_over_from_records_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    key = AnswerKey.of(request(), LOCAL)
    assert AnswerKey.read(str(key)) == key
    row = {"completion": "答え: a", "finish_reason": "stop", "prompt_tokens": 5, "tokens": 2, "cost": 0.25}
    row |= {"model": "m", "prompt": "plain"}
    (tmp_path / "records").mkdir()
    pq.write_table(pa.Table.from_pylist([{**row, "answer_key": str(key)}]), tmp_path / "records" / "m.parquet")
    run = {"model": "m", "prompt": "plain", "engine": "local", "engine_version": "0.1.0"}
    (tmp_path / "runs").mkdir()
    pq.write_table(pa.Table.from_pylist([run]), tmp_path / "runs" / "runs.parquet")
    store = AnswerStore(tmp_path / "store")
    assert [store.restore(tmp_path), store.restore(tmp_path)] == [1, 0]
    generator = Counting()
    reply = ask(store, generator, request())["q"]
    assert generator.asked == [] and (reply.text, reply.cost, reply.completion_tokens) == ("答え: a", 0.25, 2)
    assert reply.by == "local 0.1.0"
    (line,) = [line for line in next((tmp_path / "store").glob("*.jsonl")).read_text("utf-8").splitlines() if line]
    assert json.loads(line)["at"] == "local"
