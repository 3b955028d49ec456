"""Read every error code with its text from the calls that raise it, and write docs/errors.md."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medllm.page.html import sentence_keys, words

ROOT = Path(__file__).parent.parent

CODE = re.compile(r"[a-z]+(?:-[a-z]+)*\.[a-z0-9]+(?:-[a-z0-9]+)*")
"""An area and a kind in small letters: `recipe.unknown-exam`."""

AREAS = {
    "recipe": "A recipe",
    "exam": "Exams, records and reports",
    "corpus": "Texts and the leakage audit",
    "teach": "A teacher's explanations",
    "preferences": "Preference pairs and votes",
    "weights": "Models, adapters and the merge",
    "training": "Training",
    "generation": "Answers of models and servers",
    "stage": "Stages and the pipeline",
    "hub": "The Hub",
    "server": "The embedded Hub, as its clients see it",
    "launch": "Jobs, Slurm and AutoTrain",
    "page": "The page",
    "card": "Cards",
    "command": "The command line",
    "install": "The installation",
}
"""The areas of the page, in order: the word before the dot of a code, and its heading."""


@dataclass(frozen=True)
class RaisedError:
    """One call that makes an error: its place, its code and its text with `{names}` where values go."""

    path: str
    line: int
    code: str | None
    """None where the call gives no literal code."""
    text: str


@cache
def error_classes(root: Path = ROOT / "medllm") -> set[str]:
    """Name MedllmError, all classes below it, and `RecipeFault`."""
    bases = {
        node.name: {ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases}
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    known = {"MedllmError"}
    while more := {name for name, above in bases.items() if above & known} - known:
        known |= more
    return (known - {"MissingExtraError"}) | {"RecipeFault"}


@cache
def raised_errors(root: Path = ROOT / "medllm") -> tuple[RaisedError, ...]:
    """List every call that makes an error, in the order of files and lines."""
    classes = error_classes(root)
    trees = {
        str(path.relative_to(root.parent)): ast.parse(path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))
    }
    factories = {name: call for tree in trees.values() for name, call in _factories(tree, classes)}
    return tuple(error for path, tree in trees.items() for error in _calls(path, tree, classes, factories))


def _factories(tree: ast.AST, classes: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Find the functions that return an error of one code with the text that they are given: name and inner call."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or not isinstance(function.body[-1], ast.Return):
            continue
        call, given = function.body[-1].value, {argument.arg for argument in function.args.args}
        if isinstance(call, ast.Call) and ast.unparse(call.func) in classes and len(call.args) == 2:
            text = call.args[1]
            if isinstance(text, ast.Name) and text.id in given:
                yield function.name, call


def _calls(path: str, tree: ast.AST, classes: set[str], factories: Mapping[str, ast.Call]) -> Iterator[RaisedError]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in factories.values():
            continue
        name = ast.unparse(node.func).rsplit(".", 1)[-1]
        if name in factories:
            kind = factories[name].args[0]
            yield RaisedError(path, node.lineno, str(ast.literal_eval(kind)), _text(tree, node, 0))
            continue
        code = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        coded = (
            isinstance(code, str) and bool(CODE.fullmatch(code)) and not (name == "RecipeFault" and len(node.args) < 3)
        )
        if name == "ResultsError" and coded:
            sentences = " ".join(words()[key]["en"] for key in sentence_keys(str(code)))
            yield RaisedError(path, node.lineno, str(code), sentences)
            continue
        if name in classes and node.args and isinstance(node.args[0], ast.Attribute) and node.args[0].attr == "code":
            continue  # the code of another error, which is listed where that one is made
        if name in classes:
            text = _text(tree, node, -1) if node.args else ""
            yield RaisedError(path, node.lineno, str(code) if coded else None, text)
        elif name == "__init__" and coded and len(node.args) > 1:
            yield RaisedError(path, node.lineno, str(code), _text(tree, node, 1))


def _text(tree: ast.AST, call: ast.Call, index: int) -> str:
    """Read the text that a call is given: written there, or assigned to a name on a line above."""
    given = call.args[index]
    if isinstance(given, ast.Name):
        values = {
            node.lineno: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == given.id and node.lineno < call.lineno
        }
        if values:
            more = [
                template(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.AugAssign)
                and ast.unparse(node.target) == given.id
                and max(values) < node.lineno < call.lineno
            ]
            return template(values[max(values)]) + "".join(more)
    return template(given)


def template(node: ast.expr) -> str:
    """Write a text with a name in braces for each value: `{path}: no key`.

    >>> template(ast.parse("f'{self.path}: line {n + 1}'", mode="eval").body)
    '{path}: line {n}'
    """
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    expression = node.value if isinstance(node, ast.FormattedValue) else node
    names = [one.attr if isinstance(one, ast.Attribute) else one.id for one in _named(expression)]
    return f"{{{names[0] if names else 'value'}}}"


def _named(node: ast.expr) -> list[ast.Attribute | ast.Name]:
    """Names in an expression; an argument comes before the function that it is given to."""
    if isinstance(node, ast.Call) and node.args and not isinstance(node.func, ast.Attribute):
        return [name for argument in node.args for name in _named(argument)]
    if isinstance(node, ast.Call):
        return [name for argument in node.args for name in _named(argument)] or _named(node.func)
    if isinstance(node, ast.Attribute | ast.Name):
        return [node]
    return [name for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.expr) for name in _named(inner)]


def errors_page() -> str:
    """Write the page of all codes: each text names the place, the cause and the remedy."""
    texts: dict[str, list[str]] = {
        "install.missing-extra": ["{needed_for} needs the `{extra}` extra: pip install 'medllm[{extra}]'"]
    }
    for error in raised_errors():
        if error.code and error.text not in texts.setdefault(error.code, []):
            texts[error.code].append(error.text)
    page = (
        "# Errors\n\nEvery expected error has a code that stays the same; programs and tests compare codes. The text\n"
        "names the place, the cause and the remedy; words in braces are filled in. The command line prints\n"
        "`medllm: TEXT [CODE]` and exits with code 1. Generated by `docs/reference.py` from the calls that raise\n"
        "the errors.\n"
    )
    for area, heading in AREAS.items():
        codes = sorted(code for code in texts if code.split(".")[0] == area)
        if codes:
            page += f"\n## {heading}\n\n| code | text |\n|---|---|\n"
            page += "".join(f"| `{code}` | {'<br>'.join(map(_cell, texts[code]))} |\n" for code in codes)
    return page


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()
