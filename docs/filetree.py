"""Draw the repository's file tree with one line for each file, and read it back for the tests."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

LONGEST = 117
"""Letters of a line's sentence; a longer one is cut at a word."""

NO_PROSE = ("#", "<", "|", "```", "!", "{", "-", "*", " ")
"""How headings, tables, pictures, lists, code and templates begin."""

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
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted({Path(name) for name in listed if (ROOT / name).is_file()})


def sentence(path: Path) -> str:
    """Tell in one line what a file is, from its docstring, leading comment or first paragraph."""
    if path.suffix in UNDESCRIBED and path.name != "constraints.txt":
        return UNDESCRIBED[path.suffix]
    try:
        text = (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "data"
    return _shortened(_opening(path, text))


def _opening(path: Path, text: str) -> str:
    if path.suffix == ".py":
        found = re.match(r'(?:#.*\n|\s)*r?"""(.+?)(?:"""|\n)', text)
        return found[1] if found else ""
    if path.suffix == ".md":
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a card's front matter
        paragraphs = (part.replace("\n", " ") for part in text.split("\n\n"))
        return next((part for part in paragraphs if part and not part.startswith(NO_PROSE)), "")
    if path.suffix in (".css", ".js", ".mjs"):
        found = re.search(r"^(?:/\*+ |// )(.+?)(?: \*/)?$", text, re.MULTILINE)
        return found[1] if found else ""
    lines = (line[1:].strip() for line in text.splitlines() if line.startswith("#") and not line.startswith("#!"))
    return next((line for line in lines if line and not line.startswith("yaml-language-server")), "")


def _shortened(text: str) -> str:
    """Keep the first sentence, cut where it is longer than a line."""
    first = re.split(r"(?<=[.。])(?:\s|$)|(?<=。)", text.strip(), maxsplit=1)[0]
    return first if len(first) <= LONGEST else first[:LONGEST].rsplit(" ", 1)[0] + " ..."


def tree() -> str:
    """Draw the file tree, one line a file, one fold a folder of the root."""
    folders: dict[str, list[Path]] = {}
    for path in files():
        folders.setdefault(path.parts[0] if len(path.parts) > 1 else "", []).append(path)
    blocks = ["```\n" + "\n".join(_leaves(folders.pop("", []), depth=0)) + "\n```"]
    for folder, paths in sorted(folders.items()):
        body = "\n".join(_leaves(paths, depth=1))
        count = "1 file" if len(paths) == 1 else f"{len(paths)} files"
        blocks.append(f"<details><summary><code>{folder}/</code> ({count})</summary>\n\n```\n{body}\n```\n\n</details>")
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
