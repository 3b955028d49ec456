"""Regenerate what documents repeat from the code: file tree, help texts, recipe keys and schema (`--check` compares).

Run as `python docs/reference.py`; `make style` does so, `make quality` runs it with --check.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from medllm.cli.edge import app
from medllm.recipe.settings import Recipe

ROOT = Path(__file__).parent.parent

UNDESCRIBED = {
    ".gif": "a picture",
    ".jpg": "a picture",
    ".json": "data",
    ".jsonl": "records, one a line",
    ".parquet": "a table",
    ".png": "a picture",
    ".safetensors": "weights",
    ".svg": "a picture",
    ".txt": "text",
    ".csv": "a table",
    ".html": "a page",
}
"""What is said of files that cannot carry a sentence of their own."""


def files() -> list[Path]:
    """List what belongs to the repository: what git knows or would add, as far as it is there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return sorted({Path(name) for name in listed if (ROOT / name).is_file()})


def sentence(path: Path) -> str:
    """Tell in one line what a file is, from its docstring, leading comment or heading."""
    if path.suffix in UNDESCRIBED and path.name != "constraints.txt":
        return UNDESCRIBED[path.suffix]
    try:
        text = (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "data"
    if path.suffix == ".py":
        found = re.match(r'(?:#.*\n|\s)*r?"""(.+?)(?:"""|\n)', text)
        return found[1].strip() if found else ""
    if path.suffix == ".md":
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a card's front matter
        found = re.search(
            r"^(?![#<|`!\s{-])(.{1,110})(?<=[.:。])(?=\s|$)|^(?![#<|`!\s{-])(.{1,110})", text, re.MULTILINE
        )
        return (found[1] or found[2]).strip() if found else ""
    if path.suffix in (".css", ".js", ".mjs"):
        found = re.search(r"^(?:/\*+ |// )(.+?)(?: \*/)?$", text, re.MULTILINE)
        return found[1].strip() if found else ""
    lines = (line[1:].strip() for line in text.splitlines() if line.startswith("#") and not line.startswith("#!"))
    return next((line for line in lines if line and not line.startswith("yaml-language-server")), "")


def tree() -> str:
    """Draw the file tree, one line a file, one fold a folder of the root."""
    folders: dict[str, list[Path]] = {}
    for path in files():
        folders.setdefault(path.parts[0] if len(path.parts) > 1 else "", []).append(path)
    blocks = ["```\n" + "\n".join(_leaves(folders.pop("", []), depth=0)) + "\n```"]
    for folder, paths in sorted(folders.items()):
        body = "\n".join(_leaves(paths, depth=1))
        blocks.append(
            f"<details><summary><code>{folder}/</code> ({len(paths)} files)</summary>\n\n```\n{body}\n```\n\n</details>"
        )
    return "\n\n".join(blocks)


def _leaves(paths: list[Path], depth: int) -> Iterator[str]:
    above: tuple[str, ...] = ()
    for path in sorted(paths, key=lambda one: (one.parent.parts, one.name)):
        inner = path.parts[depth:-1]
        if inner != above:
            shared = next((i for i, (a, b) in enumerate(zip(inner, above, strict=False)) if a != b), None)
            start = min(len(inner), len(above)) if shared is None else shared
            for level in range(start, len(inner)):
                yield "  " * level + inner[level] + "/"
            above = inner
        name = "  " * len(inner) + path.name
        yield f"{name:<34}  {sentence(path)}".rstrip()


def listed_in_tree(text: str) -> list[str]:
    """Read the paths back out of a drawn tree: what the tests compare with the disk."""
    paths: list[str] = []
    for root, body in re.findall(r"(?:<code>(.*?)/</code>.*?\n\n)?```\n(.*?)\n```", text, re.DOTALL):
        above = [root] if root else []
        for line in body.splitlines():
            level = (len(line) - len(line.lstrip())) // 2 + (1 if root else 0)
            name = line.split()[0]
            above = above[:level]
            if name.endswith("/"):
                above.append(name[:-1])
            else:
                paths.append("/".join([*above, name]))
    return paths


def help_text(command: tuple[str, ...] = ()) -> str:
    """Return what `medllm ... --help` prints, 100 columns wide."""
    done = CliRunner().invoke(app, [*command, "--help"], prog_name="medllm", terminal_width=100)
    return f"$ {' '.join(['medllm', *command, '--help'])}\n{done.output.strip()}"


def commands() -> list[tuple[str, ...]]:
    """List every command, groups before their members."""
    return list(_commands(typer.main.get_command(app), ()))


def _commands(group: object, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    commands = getattr(group, "commands", {})
    for name in group.list_commands(None) if commands else ():  # type: ignore[attr-defined]
        command = commands[name]
        yield (*above, name)
        yield from _commands(command, (*above, name))


def options(command: tuple[str, ...]) -> set[str]:
    """Name the options a command takes, as `--json`."""
    found = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in [*parameter.opts, *parameter.secondary_opts]}


def command_page() -> str:
    """Write the page with every command's help."""
    page = "# Commands\n\nThe help of every command, generated by `docs/reference.py` from its docstring.\n"
    for command in [(), *commands()]:
        page += f"\n## medllm {' '.join(command)}".rstrip() + f"\n\n```\n{help_text(command)}\n```\n"
    return page


def recipe_page() -> str:
    """Write the page with every key of a recipe."""
    page = (
        "# Recipe keys\n\nEvery key of a recipe, generated by `docs/reference.py` from `medllm/recipe/`.\n"
        "An editor that knows JSON Schema reads `recipes/schema.json` and completes them.\n"
        "Keys marked † change no result: they are left out of the digest.\n"
    )
    seen: set[type[BaseModel]] = set()
    queue: list[tuple[str, type[BaseModel]]] = [("", Recipe)]
    while queue:
        place, model = queue.pop(0)
        if model in seen:
            continue
        seen.add(model)
        page += f"\n## {f'`{place}`' if place else 'The recipe'}\n\n{_first_line(model)}\n"
        page += "\n| key | default | |\n|---|---|---|\n"
        for name, field in model.model_fields.items():
            mark = "†" if name in getattr(model, "beside_the_result", ()) else ""
            default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
            page += f"| `{name}`{mark} | {default} | {field.description or ''} |\n"
            for inner in _models(field.annotation):
                queue.append((f"{place}.{name}" if place else name, inner))
    return page


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _shown(default: object) -> str:
    if isinstance(default, BaseModel):
        return "see there"
    if isinstance(default, tuple | list):
        return f"`[{', '.join(map(str, default))}]`"
    return "left out" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def schema() -> str:
    """Write the JSON Schema of a recipe, for editors; the shorthands that the reader accepts are in it."""
    return json.dumps(Recipe.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def filled(text: str, parts: dict[str, str]) -> str:
    """Put fresh text between the marks `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, fresh in parts.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, fresh=fresh: f"{found[1]}{fresh}\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


def fresh() -> dict[Path, str]:
    """Make every generated file as it should be."""
    made = {
        ROOT / "recipes/schema.json": schema(),
        ROOT / "docs/commands.md": command_page(),
        ROOT / "docs/recipe.md": recipe_page(),
    }
    parts = {"help": f"```\n{help_text()}\n```"}
    for name in ("README.md", "README.ja.md"):
        path = ROOT / name
        made[path] = filled(path.read_text(encoding="utf-8"), parts | ({"tree": tree()} if name == "README.md" else {}))
    return made


def main() -> int:
    """Write what is stale, or with --check only name it."""
    for folder in ("recipes", "docs"):
        (ROOT / folder).mkdir(exist_ok=True)
    made = fresh()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {path.relative_to(ROOT)}")
        if "--check" not in sys.argv:
            path.write_text(made[path], encoding="utf-8")
            # Again from the start: the tree tells of generated files too.
            return main()
    if stale and "--check" in sys.argv:
        print("Run `make style`: these repeat what the code says, and the code has changed.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
