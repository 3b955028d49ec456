"""A file is whole or as it was: after an error, a full disk or a kill nobody reads a half."""

import pytest

from medllm.files import atomic_folder, atomic_write, write_text


def test_an_error_leaves_the_old_file_and_no_half(tmp_path):
    path = tmp_path / "facts.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="full"), atomic_write(path) as part:
        part.write_text("ha", "utf-8")
        raise OSError("the disk is full")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("facts.json", "old")]


def test_what_a_kill_left_is_replaced_by_the_next_write(tmp_path):
    (tmp_path / "a.txt.part").write_text("a longer half of before", "utf-8")
    write_text(tmp_path / "a.txt", "new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.txt", "new")]


def test_a_lone_surrogate_is_refused_or_replaced_as_the_caller_asks(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "a\ud800")
    assert list(tmp_path.iterdir()) == []
    write_text(tmp_path / "a.txt", "a\ud800", "replace")
    assert (tmp_path / "a.txt").read_text("utf-8") == "a?"


def fill(path, name):
    with atomic_folder(path) as part:
        (part / name).write_text("whole", "utf-8")


def test_a_folder_replaces_the_older_one_with_all_its_files(tmp_path):
    fill(tmp_path / "deep" / "tokens", "old")
    fill(tmp_path / "deep" / "tokens", "new")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "deep", "deep/tokens", "deep/tokens/new"
    ]  # fmt: skip


def test_an_error_leaves_the_old_folder_and_no_half(tmp_path):
    fill(tmp_path / "tokens", "old")
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "tokens") as part:
        (part / "new").write_text("ha", "utf-8")
        raise OSError("the disk is full")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["tokens", "tokens/old"]


def test_what_a_kill_left_of_a_folder_is_not_in_the_next_one(tmp_path):
    (tmp_path / "tokens.part").mkdir()
    (tmp_path / "tokens.part" / "of before").touch()
    fill(tmp_path / "tokens", "new")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["tokens", "tokens/new"]
