"""Long files are cut into pieces where that loses nothing, and what is wrong with a whole file is told once."""

import json

from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks, split_source

TEXT = "発熱と咳嗽を主訴に来院した。"


def drafts(folder):
    return [draft for piece in split_source(TextSource("notes", folder)) for draft in read_drafts(piece)]


def test_a_long_file_in_utf_16_is_not_cut_and_loses_no_line(tmp_path, monkeypatch):
    rows = [json.dumps({"text": f"{number}。{TEXT}"}, ensure_ascii=False) for number in range(300)]
    (tmp_path / "rows.jsonl").write_bytes("\n".join(rows).encode("utf-16"))
    whole = drafts(tmp_path)
    monkeypatch.setattr("medllm.corpus.read.sources.PIECE", 1000)
    assert drafts(tmp_path) == whole
    assert [draft.locator for draft in whole] == [f"rows.jsonl:{number}" for number in range(1, 301)]


def test_what_is_wrong_with_a_whole_file_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr("medllm.corpus.read.sources.PIECE", 1000)
    (tmp_path / "rows.jsonl").write_bytes(b"\0" * 9000)
    assert len(split_source(TextSource("notes", tmp_path))) == 9
    assert [str(draft.fault).partition(":")[0] for draft in drafts(tmp_path)] == ["not_text"]


def test_many_small_files_are_shared_out_with_one_look_at_each(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text(TEXT, "utf-8")
    looked = []
    size = SourcePart.size.fget
    monkeypatch.setattr(SourcePart, "size", property(lambda piece: looked.append(piece.name) or size(piece)))
    monkeypatch.setattr("medllm.corpus.read.sources.PIECE", 100 * len(TEXT.encode()))
    tasks = split_into_tasks([TextSource("notes", tmp_path)])
    assert [len(pieces) for pieces in tasks] == [100, 100, 100]
    assert len(looked) <= 2 * 300, "not once for every file before it"
