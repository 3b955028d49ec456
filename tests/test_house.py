"""The repository itself: the drawn file tree, docstrings, sizes, versions and generated files."""

import ast
import itertools
import re
import socket
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from pytest_socket import SocketConnectBlockedError

import medllm
from docs import reference

ROOT = Path(__file__).parent.parent
SOURCES = [path for path in reference.files() if path.suffix == ".py"]
PACKAGE = [path for path in SOURCES if path.parts[0] == "medllm"]

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
SHORTEST_SENTENCE = 4
"""Words of a docstring: with fewer it repeats the name."""


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_files_are_found_at_all():
    assert {Path("medllm/errors.py"), Path("docs/reference.py"), Path("tests/test_house.py")} <= set(SOURCES)


def test_the_tree_page_lists_exactly_the_files_that_exist():
    listed = reference.listed_in_tree(read(Path("docs/tree.md")))
    assert sorted(listed) == sorted(str(path) for path in reference.files()), "run `make style`"


def test_generated_files_are_fresh():
    stale = [path.name for path, text in reference.fresh().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make style`"


def test_every_file_has_a_line_in_the_tree_that_says_what_it_is():
    silent = [str(path) for path in reference.files() if not reference.sentence(path) and read(path).strip()]
    assert silent == [".gitignore", "LICENSE"]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_python_file_opens_with_one_short_sentence(path: Path):
    if not read(path).strip():
        return
    docstring = ast.get_docstring(ast.parse(read(path)))
    assert docstring, f"{path} has no docstring"
    assert len(docstring.splitlines()[0]) <= 117


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_file_and_no_function_is_too_long(path: Path):
    text = read(path)
    assert len(text.splitlines()) <= LONGEST_FILE
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_every_public_name_has_a_docstring_of_four_words_or_more(path: Path):
    named = public_definitions(ast.parse(read(path)).body)
    assert [name for name, node in named if says_little(ast.get_docstring(node) or "")] == []


def says_little(docstring: str) -> bool:
    return len(docstring.split("\n\n")[0].split()) < SHORTEST_SENTENCE


def test_a_docstring_of_two_or_three_words_says_too_little():
    assert says_little("A repository more.")
    assert says_little("")
    assert says_little("Close it.\n\nThe rest is long, but nobody reads it first.")
    assert not says_little("Add a repository to a collection.")


def public_definitions(
    body: list[ast.stmt],
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in public_definitions(node.body))


VAGUE = re.compile(
    r"(^|_)(utils?|helpers?|managers?|common|misc|stuff|things?|beside|told|found|alone|wanted|said|look)(_|$)"
)
"""A file is called by what it holds."""


def test_no_file_is_called_by_a_word_that_says_nothing():
    assert [str(path) for path in SOURCES if VAGUE.search(path.stem)] == []


def test_the_version_stands_in_the_changelog():
    assert f'version = "{medllm.__version__}"' in read(Path("pyproject.toml"))
    assert f"## [{medllm.__version__}]" in read(Path("CHANGELOG.md"))


def test_no_document_names_a_place_on_somebodys_machine():
    own = re.compile(r"(?<![\w./-])/(?:work|home/\w+|Users/\w+|root)/")
    kinds = {".py", ".md", ".yaml", ".toml", ".json", ".sh", ""}
    named = [
        str(p) for p in reference.files() if p.suffix in kinds and p.name != "test_house.py" and own.search(read(p))
    ]
    assert named == []


OPTIONAL = {
    "ray": "an executor of the corpus, 240 MB: `pip install '.[ray]'`, as CI does",
    "spaces": "exists on ZeroGPU Spaces only",
}


def test_every_dependency_is_pinned_to_the_version_that_is_installed_here():
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", read(Path("constraints.txt")), re.MULTILINE))
    project = tomllib.loads(read(Path("pyproject.toml")))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=\[ ;]", one)[0].lower().replace("_", "-") for one in wanted} - {"medllm"}
    assert len(names) > 20
    assert names - set(pins) == set()
    # `+cpu` and the like say which build it is, not which version.
    names -= {name for name in OPTIONAL if find_spec(name) is None}
    other = {name: version(name) for name in names if version(name).split("+")[0] != pins[name]}
    assert other == {}


LOADED_BY_OTHERS = {"tensorboard", "trackio", "orjson", "medllm"}
"""Declared, and imported by transformers or datatrove for us."""


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    owners = packages_distributions()
    imported = {name for path in PACKAGE for name in imported_modules(ast.parse(read(path)))}
    imported -= {"medllm", *OPTIONAL, *sys.stdlib_module_names}
    project = tomllib.loads(read(Path("pyproject.toml")))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *itertools.chain(*(extras[name] for name in ("train", "space", "curate")))]
    declared = {re.split(r"[<>=\[ ;]", one)[0].lower().replace("_", "-") for one in wanted}
    used = {owner.lower().replace("_", "-") for name in imported for owner in owners[name]}
    assert len(used) > 20
    assert used - declared == set()
    assert declared - used - LOADED_BY_OTHERS == set()


def imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_tests_reach_no_other_machine():
    # pytest-socket first warns, and a warning is an error here.
    with pytest.raises((SocketConnectBlockedError, UserWarning), match=r"192\.0\.2\.1"), socket.socket() as out:
        out.connect(("192.0.2.1", 80))


def test_every_room_is_in_the_architecture_page():
    rooms = {path.parts[1].removesuffix(".py") for path in PACKAGE} - {"__init__"}
    page = read(Path("docs/architecture.md"))
    assert len(rooms) > 10
    assert sorted(room for room in rooms if not re.search(rf"`{room}(/|\.py)?`", page)) == []
