"""What the README says to type is what there is, in both languages."""

import re
import shlex
from pathlib import Path

import pytest

from docs import reference

ROOT = Path(__file__).parent.parent
README, JAPANESE = ROOT / "README.md", ROOT / "README.ja.md"
BENCHMARKS = ROOT / "docs" / "benchmarks"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), README, JAPANESE]
SECTIONS = ("Command", "Result", "What it does not show")
CLAIMS = [page for page in sorted(BENCHMARKS.glob("*.md")) if page.name != "README.md"]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def typed(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    lines = [line[2:] for block in blocks(path, "console") for line in block.splitlines() if line.startswith("$ ")]
    inline = re.findall(r"`((?:medllm|make) [a-z][^`]*)`", text)
    return [line.split("  #")[0].strip() for line in lines + inline]


@pytest.mark.parametrize("path", [README, JAPANESE], ids=["English", "Japanese"])
def test_the_readme_names_every_command(path: Path):
    text = path.read_text(encoding="utf-8")
    top = {command[0] for command in reference.commands()}
    assert len(top) > 10
    assert sorted(name for name in top if f"`medllm {name}" not in text) == []


@pytest.mark.parametrize("path", [README, JAPANESE], ids=["English", "Japanese"])
def test_the_readme_is_short_enough_to_be_read(path: Path):
    assert len(path.read_bytes()) <= 12_000


@pytest.mark.parametrize("path", [README, JAPANESE], ids=["English", "Japanese"])
def test_the_readme_has_a_line_for_each_package_and_a_link_to_each_page(path: Path):
    text = path.read_text(encoding="utf-8")
    packages = {folder.name for folder in (ROOT / "medllm").iterdir() if (folder / "__init__.py").is_file()}
    assert len(packages) > 10
    assert sorted(name for name in packages if f"`{name}`" not in text) == []
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert sorted(name for name in pages if f"](docs/{name})" not in text) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_medllm_command_that_is_shown_exists(path: Path):
    known = {command: reference.options(command) for command in [(), *reference.commands()]}
    for line in typed(path):
        words = shlex.split(line.rstrip("\\"))
        if "medllm" not in words:
            continue
        words = words[words.index("medllm") + 1 :]
        name = max((c for c in known if tuple(words[: len(c)]) == c), key=len)
        assert name or words[:1] == ["--help"], f"{path.name}: no such command: {line}"
        given = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert given <= known[name], f"{path.name}: {line}"


@pytest.mark.parametrize("path", [README, JAPANESE], ids=["English", "Japanese"])
def test_every_make_target_that_is_shown_exists(path: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {word for line in typed(path) if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert shown <= targets


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(path: Path):
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_both_languages_have_the_same_headings_and_commands():
    levels = [re.findall(r"^(#+) ", path.read_text(encoding="utf-8"), re.MULTILINE) for path in (README, JAPANESE)]
    assert levels[0] == levels[1]
    assert sorted(typed(README)) == sorted(typed(JAPANESE))


def test_the_list_of_benchmarks_links_to_each_page_by_its_claim():
    listed = re.findall(r"\[([^]]+)\]\((\S+\.md)\)", (BENCHMARKS / "README.md").read_text(encoding="utf-8"))
    claims = {page.name: page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for page in CLAIMS}
    assert len(claims) > 20
    assert {link: claim for claim, link in listed if "/" not in link} == claims


@pytest.mark.parametrize("page", CLAIMS, ids=lambda page: page.name)
def test_a_benchmark_page_has_a_claim_a_command_a_result_and_its_limits(page: Path):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)
    assert typed(page)
    claim = text.split("\n\n")[1]
    assert not claim.startswith(("#", "|", "```"))


@pytest.mark.parametrize("page", CLAIMS, ids=lambda page: page.name)
def test_the_programs_of_a_benchmark_page_exist(page: Path):
    programs = re.findall(r"\b((?:benchmarks|tests)/[\w/]+\.py)\b", page.read_text(encoding="utf-8"))
    assert [program for program in programs if not (ROOT / program).is_file()] == []
