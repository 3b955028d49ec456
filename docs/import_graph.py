"""Draw which packages of medllm import which, for docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```mermaid\n.*?^```\n\n\d.*?\n", re.DOTALL | re.MULTILINE)
"""The drawing and the sentence of counts below it."""


def module_imports() -> dict[str, set[str]]:
    """Map each module to the modules of medllm that it imports, at the top or inside a function."""
    paths = {_name(path): path for path in (ROOT / "medllm").rglob("*.py")}
    return {
        name: {_module(target, paths) for target in _targets(ast.parse(path.read_text("utf-8")))} - {name, "medllm"}
        for name, path in paths.items()
    }


def package_imports(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Map each package, or module beside the packages, to those it imports."""
    packages: dict[str, set[str]] = {}
    for name, targets in modules.items():
        if name != "medllm":
            own = name.split(".")[1]
            packages.setdefault(own, set()).update({target.split(".")[1] for target in targets} - {own})
    return packages


def drawing() -> str:
    """Draw the imports that no longer path implies and count all; a circle raises CycleError."""
    modules = module_imports()
    tuple(TopologicalSorter(modules).static_order())
    packages = package_imports(modules)
    tuple(TopologicalSorter(packages).static_order())
    arrows = [f"  {own} --> {other}" for own in sorted(packages) for other in sorted(_direct(own, packages))]
    counts = f"{len(modules)} modules with {_count(modules)} imports, {len(packages)} packages with {_count(packages)};"
    return "```mermaid\nflowchart TD\n" + "\n".join(arrows) + "\n```\n\n" + f"{counts} no circle.\n"


def architecture_page() -> str:
    """Return docs/architecture.md with a fresh drawing."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return BLOCK.sub(lambda _: drawing(), page)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _targets(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "medllm")
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "medllm":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module(target: str, paths: dict[str, Path]) -> str:
    while target not in paths:
        target = target.rpartition(".")[0]
    return target


def _direct(own: str, packages: dict[str, set[str]]) -> set[str]:
    return {other for other in packages[own] if not any(other in _below(via, packages) for via in packages[own])}


def _below(own: str, packages: dict[str, set[str]]) -> set[str]:
    return packages[own] | {far for near in packages[own] for far in _below(near, packages)}


def _count(imports: dict[str, set[str]]) -> int:
    return sum(map(len, imports.values()))
