"""The repository itself: the drawn file tree, docstrings, sizes, versions and generated files."""

import ast
import itertools
import re
import socket
import subprocess
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


SHORT_FILE = 60
"""Lines under which a module of one user is a crumb: a reader opens a file for what stands in the next one."""
SHORT = {
    "cli/": "commands",
    "corpus/read/": "readers of a format",
    "exam/benchmarks/": "readers of a benchmark",
    "preflight/": "checks of one kind of input",
    "launch/job_script.py": "the program of a Job, sent as a file",
}
"""Folders, and modules, that may be short with fewer than two users, each with its reason."""


def test_a_short_module_has_two_users_or_a_reason():
    users = users_of_modules({path: ast.parse(read(path)) for path in PACKAGE})
    short = {
        path.relative_to("medllm").as_posix()
        for path in PACKAGE
        if len(read(path).splitlines()) < SHORT_FILE and len(users[path]) < 2
    }
    short -= {name for name in short if name.endswith(("__init__.py", "__main__.py"))}
    assert sorted(name for name in short if not name.startswith(tuple(SHORT))) == [], "merge it into its user"
    needless = [name for name in SHORT if (ROOT / "medllm" / name).is_file() and name not in short]
    assert needless == [], "it needs no reason any more"


def users_of_modules(trees: dict[Path, ast.Module]) -> dict[Path, set[Path]]:
    """The modules that import each module, as a whole or a name of it."""
    named = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in trees}
    users: dict[Path, set[Path]] = {path: set() for path in trees}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                if name in named and named[name] != path:
                    users[named[name]].add(path)
    return users


def test_a_user_is_seen_whether_it_imports_the_module_or_a_name_in_a_function_or_not():
    files = {
        "medllm/a/one.py": "x = 1",
        "medllm/a/two.py": "from medllm.a import one",
        "medllm/b.py": "def f():\n    from medllm.a.one import x\n    import medllm.a.two",
    }
    users = users_of_modules({Path(name): ast.parse(text) for name, text in files.items()})
    assert users == {
        Path("medllm/a/one.py"): {Path("medllm/a/two.py"), Path("medllm/b.py")},
        Path("medllm/a/two.py"): {Path("medllm/b.py")},
        Path("medllm/b.py"): set(),
    }


VAGUE = re.compile(
    r"(^|_)(utils?|helpers?|managers?|common|misc|stuff|things?|beside|told|found|alone|wanted|said|look)(_|$)"
)
"""A file is called by what it holds."""


def test_no_file_is_called_by_a_word_that_says_nothing():
    assert [str(path) for path in SOURCES if VAGUE.search(path.stem)] == []


def test_the_version_is_in_the_changelog():
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
ON_HUB_ONLY = {"spaces"}
"""Imported where it is: a ZeroGPU Space has it."""
COMPARED_WITH = {"lm_eval", "inspect_ai"}
"""Imported by what compares with it or runs inside it, which says how to install it."""
WITHOUT_EXTRAS = ("cards", "cli", "errors", "exam", "files", "hub", "launch", "localhub", "pipeline", "processes",
                  "recipe", "votes")  # fmt: skip
"""Rooms that an installation without extras imports."""


def declared_in(extras: tuple[str, ...]) -> set[str]:
    """The distributions of the core and of these extras."""
    project = tomllib.loads(read(Path("pyproject.toml")))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*(project["optional-dependencies"][name] for name in extras))]
    return {re.split(r"[<>=\[ ;]", one)[0].lower().replace("_", "-") for one in wanted}


def distributions(paths: list[Path], *, at_import: bool = False) -> set[str]:
    """The distributions whose modules these files import; with `at_import`, only outside functions."""
    owners = packages_distributions()
    own = {"medllm", "tests", "docs", "benchmarks", "tools", *ON_HUB_ONLY, *COMPARED_WITH, *sys.stdlib_module_names}
    names = {name for path in paths for name in imported_modules(ast.parse(read(path)), at_import=at_import)} - own
    return {owner.lower().replace("_", "-") for name in names for owner in owners.get(name, [name])}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    used, declared = distributions(PACKAGE), declared_in(("train", "space", "curate", "notebook", "ray"))
    assert len(used) > 20
    assert used - declared == set()
    assert declared - used - LOADED_BY_OTHERS == set()


def test_what_an_installation_without_extras_imports_is_declared_without_extras():
    core = [path for path in PACKAGE if path.parts[1].removesuffix(".py") in WITHOUT_EXTRAS]
    assert len(core) > 100
    assert distributions(core, at_import=True) - declared_in(()) == set()


def test_what_tests_benchmarks_docs_and_tools_import_is_declared_too():
    others = [path for path in SOURCES if path.parts[0] != "medllm"]
    assert distributions(others) - declared_in(("train", "space", "curate", "notebook", "ray", "dev")) == set()


def imported_modules(tree: ast.AST, *, at_import: bool = False) -> Iterator[str]:
    """The first part of each imported name, in functions too; with `at_import` only what runs at the file's import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.If) and at_import and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imported_modules(node, at_import=at_import)


def test_imports_in_functions_and_branches_are_seen():
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import torch
try:
    import spaces
except ImportError:
    pass
def f():
    from trl import SFTTrainer
    class C:
        import peft.utils
"""
    assert set(imported_modules(ast.parse(text))) == {"typing", "torch", "spaces", "trl", "peft"}
    assert set(imported_modules(ast.parse(text), at_import=True)) == {"typing", "spaces"}


NO_TORCH = """
import sys
for name in ("torch", "transformers", "peft", "trl", "bitsandbytes", "datatrove"):
    sys.modules[name] = None  # so that importing it fails
import medllm.page.__main__
"""


def test_the_page_of_recorded_results_starts_where_torch_is_not_installed():
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_tests_reach_no_other_machine():
    # pytest-socket first warns, and a warning is an error here.
    with pytest.raises((SocketConnectBlockedError, UserWarning), match=r"192\.0\.2\.1"), socket.socket() as out:
        out.connect(("192.0.2.1", 80))


def test_every_room_is_in_the_architecture_page():
    rooms = {path.parts[1].removesuffix(".py") for path in PACKAGE} - {"__init__"}
    page = read(Path("docs/architecture.md"))
    assert len(rooms) > 10
    assert sorted(room for room in rooms if not re.search(rf"`{room}(/|\.py)?`", page)) == []
