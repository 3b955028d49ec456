"""Reads .gitignore and .gitattributes as git does: the last line that names a file counts."""

import fnmatch
import re
from dataclasses import dataclass

_LINES, _LONGEST = 2000, 400
_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True)
class Pattern:
    """The pattern of one line: a regular expression for each name on the path; None represents `**`."""

    names: tuple["re.Pattern[str] | None", ...]
    folders_only: bool
    negated: bool = False

    def matches(self, parts: list[str]) -> bool:
        """Return whether this is the pattern of exactly this path."""
        if len(self.names) == 2 and self.names[0] is None and self.names[1] is not None:
            return self.names[1].match(parts[-1]) is not None  # a bare name, as most patterns are
        reached = self._past_stars({0})
        for part in parts:
            stepped = set[int]()
            for place in reached:
                name = self.names[place] if place < len(self.names) else _NEVER
                if name is None:
                    stepped.add(place)
                elif name.match(part):
                    stepped.add(place + 1)
            reached = self._past_stars(stepped)
        return len(self.names) in reached

    def _past_stars(self, places: set[int]) -> set[int]:
        """Add to these places in the pattern those behind a `**`, which also matches zero names."""
        reached = set(places)
        for place in range(len(self.names)):
            if place in reached and self.names[place] is None:
                reached.add(place + 1)
        return reached


def _pattern(text: str) -> Pattern | None:
    """A pattern as git writes it: a slash at its start or in its middle ties it to the root."""
    negated = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/") if folders_only else text
    if not text or len(text) > _LONGEST:
        return None
    names = text.removeprefix("/").split("/")
    if "/" not in text:
        names = ["**", *names]
    if names[-1] == "**":
        names.append("*")  # `a/**` is everything below a, and not a itself
    try:
        compiled = tuple(None if name == "**" else re.compile(_expression(name)) for name in names)
    except re.error:
        return None
    return Pattern(compiled, folders_only, negated)


def _expression(name: str) -> str:
    """One name's pattern as a regular expression; a backslash takes a sign literally."""
    literal = re.sub(r"\\(.)", lambda match: f"[{match[1]}]" if match[1] in "*?[" else match[1], name)
    return fnmatch.translate(literal.replace("[^", "[!"))


class Ignored:
    r"""What a .gitignore keeps out.

    >>> ignored = Ignored("*.env\n!ok.env\nsecret/\n")
    >>> [ignored(path) for path in ("a.env", "ok.env", "secret/ok.env", "secrets/a.txt")]
    [True, False, True, False]
    """

    def __init__(self, text: str) -> None:
        lines = [_stripped(line) for line in text.removeprefix("\ufeff").splitlines()[:_LINES]]
        patterns = (_pattern(line) for line in lines if line and not line.startswith("#"))
        self._patterns = [pattern for pattern in patterns if pattern is not None]

    def __call__(self, path: str) -> bool:
        """Return whether the path is ignored: once a folder is, nothing below it comes back."""
        parts = path.split("/")
        return any(self._own(parts[:depth], folder=depth < len(parts)) for depth in range(1, len(parts) + 1))

    def _own(self, parts: list[str], *, folder: bool) -> bool:
        for pattern in reversed(self._patterns):
            if (folder or not pattern.folders_only) and pattern.matches(parts):
                return not pattern.negated
        return False


def _stripped(line: str) -> str:
    """A line without the blanks at its end, unless a backslash keeps the last."""
    bare = line.rstrip(" \t\r")
    return bare + " " if bare.endswith("\\") and len(line) > len(bare) else bare


class Large:
    r"""Which paths a .gitattributes gives to LFS.

    >>> large = Large("*.bin filter=lfs -text\nkeep.bin !filter text\ndata/*.tsv filter=lfs\n")
    >>> [large(path) for path in ("a.bin", "deep/keep.bin", "data/a.tsv", "data/deep/a.tsv", "a.md")]
    [True, False, True, False, False]
    """

    def __init__(self, text: str) -> None:
        self._lines: list[tuple[Pattern, bool]] = []
        macros: dict[str, bool] = {}
        for line in text.removeprefix("\ufeff").splitlines()[:_LINES]:
            name, words = _named(line)
            setting = _setting(words, macros)
            if name.startswith("[attr]"):
                macros |= {} if setting is None else {name.removeprefix("[attr]"): setting}
            elif name and not name.startswith(("#", "!")) and setting is not None and not name.endswith("/"):
                pattern = _pattern(name)
                self._lines += [] if pattern is None else [(pattern, setting)]

    def __call__(self, path: str) -> bool:
        """Return whether the path is a large file."""
        parts = path.split("/")
        return next((large for pattern, large in reversed(self._lines) if pattern.matches(parts)), False)


def _named(line: str) -> tuple[str, list[str]]:
    """A line's pattern, which quotation marks may hold together, and its attributes."""
    quoted = re.match(r'\s*"((?:[^"\\]|\\.)*)"\s*(.*)', line)
    if quoted:
        return quoted[1].replace('\\"', '"'), quoted[2].split()
    name, *words = line.split() or [""]
    return name, words


def _setting(words: list[str], macros: dict[str, bool]) -> bool | None:
    """Return whether the attributes turn LFS on (True) or off (False) for a file, or leave it open (None)."""
    setting = None
    for word in words:
        if word == "filter=lfs":
            setting = True
        elif word in ("filter", "-filter", "!filter") or word.startswith("filter="):
            setting = False
        elif word in macros:
            setting = macros[word]
    return setting
