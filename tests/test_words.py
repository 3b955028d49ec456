"""The words of the project: plain English in what people read, and names in strings and documents that exist."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs import reference

PACKAGE = [path for path in reference.files() if path.suffix == ".py" and path.parts[0] == "medllm"]
READ = [path for path in reference.files() if path.suffix in (".py", ".md", ".toml") and path != Path("docs/tree.md")]

ARCHAIC = re.compile(
    r"\b(told|tells?|telling|said|says?|aloud|at hand|lest|nought|whoever|nobody|anybody|let be|anew|gone on|stands?|"
    r"lies|bears?|held against)\b",
    re.IGNORECASE,
)
"""Words of 1890, or with so many meanings that a reader has to guess; style and reason in docs/architecture.md."""

VAGUE = re.compile(r"_?(told|said)")
"""Names that once meant many things: message, text, reply, summary, line and settings."""

SENTENCE = re.compile(
    r"^ *(?:async )?def (test_(?:\w*_)?(?:told|said|lest|nought|aloud|stands|anew)(?:_\w+)?)\(", re.MULTILINE
)
"""The name of a test that is no plain English."""

QUOTED = {
    "medllm/exam/extract/vocabulary.py",  # patterns of what models write
    "medllm/exam/extract/reply.py",
    "medllm/exam/extract/rules.py",
}

DOCUMENTS = [
    path
    for path in reference.files()
    if path.suffix == ".md" and path.parts[0] != "tests" and path.name not in ("tree.md", "README.ja.md")
]
COMMENTED = [path for path in reference.files() if path.suffix in (".yaml", ".toml") or path.name == "Makefile"]
WORDS = Path("medllm/page/words.yaml")

OLDER = {"medllm.exam.bootstrap"}
"""A module of an older checkout, which benchmarks/coverage.py can measure too."""


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines of the docstrings, messages and comments of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            # Of an f-string only the words count, not the names between braces.
            formatted = token.type == tokenize.STRING and re.match(r"[rR]?[fF]", token.string)
            words = re.sub(r"\{[^{}]*\}", "{}", token.string) if formatted else token.string
            yield from ((token.start[0] + number, line) for number, line in enumerate(words.split("\n")))


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_docstrings_messages_and_comments_are_plain_english(path: Path):
    if str(path) in QUOTED:
        return
    found = [
        f"{path}:{number}: {line.strip()}" for number, line in prose(path.read_text("utf-8")) if ARCHAIC.search(line)
    ]
    assert found == []


def test_the_ban_on_archaic_words_finds_one_in_a_docstring_a_message_and_a_comment():
    text = '"""What stands here."""\nraise ValueError("nothing was said of it")  # nobody knows\nstands = told\n'
    assert [line for _, line in prose(text) if ARCHAIC.search(line)] == [
        '"""What stands here."""',
        '"nothing was said of it"',
        "# nobody knows",
    ]


def vague_names(text: str) -> list[str]:
    """List the names of a Python file that do not show what they hold, with their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [f"{token.start[0]}: {token.string}" for token in tokens if VAGUE.fullmatch(token.string)]


def vague_variables(text: str) -> list[str]:
    """List the variables, parameters and attributes that are called `one` or `found`, with their lines."""
    nodes = list(ast.walk(ast.parse(text)))
    names = [(node.lineno, node.arg) for node in nodes if isinstance(node, ast.arg)]
    names += [(node.lineno, node.attr) for node in nodes if isinstance(node, ast.Attribute)]
    names += [
        (node.lineno, node.id) for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    return [f"{line}: {name}" for line, name in sorted(names) if name in ("one", "found")]


def test_names_of_tests_are_plain_english():
    files = [path for path in reference.files() if path.suffix == ".py" and path.parts[0] == "tests"]
    found = {str(path): SENTENCE.findall(path.read_text("utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_for_names_of_tests_finds_one_and_no_part_of_a_word():
    text = (
        "def test_it_is_told():\ndef test_what_stands_here(a):\ndef test_a_standstill():\ndef test_untold_things():\n"
    )
    assert SENTENCE.findall(text) == ["test_it_is_told", "test_what_stands_here"]


@pytest.mark.parametrize("path", [path for path in reference.files() if path.suffix == ".py"], ids=str)
def test_names_are_nouns_that_name_what_they_hold(path: Path):
    assert vague_names(path.read_text("utf-8")) == []


def test_the_search_for_vague_names_finds_one():
    assert vague_names("def told(lines):\n    said = lines\n    return said_now\n") == ["1: told", "2: said"]


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_variables_of_the_package_are_named_after_what_they_hold(path: Path):
    assert vague_variables(path.read_text("utf-8")) == []


def test_the_search_for_vague_variables_finds_one_in_an_assignment_a_loop_and_a_parameter():
    text = "def search(one):\n    found = [one for one in one.found]\n    return found\n"
    assert vague_variables(text) == ["1: one", "2: found", "2: found", "2: one"]


def written(text: str) -> str:
    """Return the prose of a Markdown page or a card template: without code, output, quotations and placeholders."""
    for pattern in (
        r"^(```|~~~).*?^\1",
        r"\{%.*?%\}",
        r"\{\{.*?\}\}",
        r"\{#.*?#\}",
        r"`[^`\n]*`",
        r'"[^"\n]*"',
        r"「[^」]*」",
    ):
        text = re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return text


def archaic(text: str) -> list[str]:
    """Return the lines of a text that hold an archaic word, with their numbers."""
    return [f"{number}: {line}" for number, line in enumerate(text.split("\n"), 1) if ARCHAIC.search(line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_documents_and_cards_are_plain_english(path: Path):
    assert archaic(written(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", COMMENTED, ids=str)
def test_comments_of_recipes_and_settings_are_plain_english(path: Path):
    comments = (re.search(r"(?:^|\s)#.*", line) for line in path.read_text("utf-8").split("\n"))
    assert archaic("\n".join(match[0] if match else "" for match in comments)) == []


def test_the_english_sentences_of_the_page_are_plain_english():
    sentences = yaml.safe_load(WORDS.read_text("utf-8"))
    assert len(sentences) > 100
    assert archaic("\n".join(f"{name}: {both['en']}" for name, both in sentences.items())) == []


def test_the_ban_reads_the_prose_of_a_page_and_not_its_code():
    page = 'It `says` "told" and\n```\nlies\n```\n{{ facts.told }} a word stands here.\n'
    assert archaic(written(page)) == ["5:  a word stands here."]


def missing(name: str) -> bool:
    """Whether a dotted name below a package of medllm is neither a module nor a word of the module before it."""
    parts, place, used = [part for part in name.split(".")[1:] if part != "__path__"], Path("medllm"), 0
    while used < len(parts) and (place / parts[used]).is_dir():
        place, used = place / parts[used], used + 1
    if used == 0 or used == len(parts):
        return False
    if (place / f"{parts[used]}.py").is_file():
        place, used = place / f"{parts[used]}.py", used + 1
    else:
        place = place / "__init__.py"
    return used < len(parts) and not re.search(rf"\b{parts[used]}\b", place.read_text("utf-8"))


def imported(text: str) -> Iterator[str]:
    """Dotted names that the import lines of a text name, whether Python runs the text or holds it as a string."""
    for module, names in re.findall(r"\bfrom (medllm(?:\.\w+)+) import ([\w, ]+)", text):
        yield from (f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",") if name.strip())


@pytest.mark.parametrize("path", READ, ids=str)
def test_modules_named_in_strings_and_documents_exist(path: Path):
    text = path.read_text("utf-8")
    names = {*re.findall(r"\bmedllm(?:\.[A-Za-z_]\w*)+", text), *imported(text)}
    assert {name for name in names if missing(name)} <= OLDER


def test_the_search_for_missing_modules_finds_one():
    assert [missing(f"medllm.{name}") for name in ("corpus.leakage", "hub.push.no_such_name")] == [True, True]
    assert [missing(f"medllm.{name}") for name in ("hub.push.push", "hub", "yaml")] == [False, False, False]
