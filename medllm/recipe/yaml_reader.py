"""Reads YAML to plain values with line numbers; rejects tabs, duplicate keys, anchors and deep nesting."""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from medllm.errors import RecipeError

LARGEST = 64_000
"""Bytes of a recipe; the paper's own has about 5,000, and PyYAML needs about a second for 200,000."""

DEEPEST = 12
"""Levels of nesting; the schema itself has five."""

Lines = dict[str, int]
"""Dotted place to line number."""


class _Loader(yaml.SafeLoader):
    """Loader of YAML 1.1 in which `1e-4` is a number and `no`, `on` and `12:30` stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":float", ":int"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN))$"),
    list("-+.0123456789"),
)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # YAML 1.1 reads 010 as eight; here it is ten.
    return int(loader.construct_scalar(node).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], Lines]:
    """Read a recipe's text; `name` is the file's, for the error.

    >>> parse_yaml("rpo: {learning_rate: 1e-6}", "r.yaml")
    ({'rpo': {'learning_rate': 1e-06}}, {'rpo': 1, 'rpo.learning_rate': 1})
    """
    _refuse_unreadable(text, name)
    try:
        _refuse_tricks(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: Lines = {}
        if node is not None:
            _walk(node, "", lines, name)
        tree = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = mark.line + 1 if mark else 1
        text = f"{name}, line {line}: not YAML: {fault.problem or fault.context}."
        raise RecipeError("recipe.not-yaml", text) from fault
    except (yaml.YAMLError, ValueError) as fault:
        raise RecipeError("recipe.not-yaml", f"{name} is not YAML: {str(fault).splitlines()[0]}") from fault
    if not isinstance(tree, dict):
        text = f"{name} has no `key: value` lines. A recipe starts with `name: ...`; see recipes/."
        raise RecipeError("recipe.no-keys", text)
    return tree, lines


def _refuse_unreadable(text: str, name: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            text = f"{name}, line {number}: indented with a tab. YAML needs spaces."
            raise RecipeError("recipe.tab", text)


def _refuse_tricks(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "anchor", None):
            text = f"{name}, line {_line(event)}: anchors and aliases are not supported. Write the value out."
            raise RecipeError("recipe.anchor", text)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            text = f"{name}, line {_line(event)}: nested more than {DEEPEST} levels deep. Recipes need at most five."
            raise RecipeError("recipe.too-deep", text)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _walk(node: Node, place: str, lines: Lines, name: str) -> None:
    """Record the line of each place, and reject a duplicate key: YAML would silently keep the last."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = f"{place}.{key.value}" if place else str(key.value)
            line = key.start_mark.line + 1
            if inner in lines:
                text = f"{name}, line {line}: `{inner}` is a duplicate of line {lines[inner]}. Keep one."
                raise RecipeError("recipe.duplicate-key", text)
            lines[inner] = line
            _walk(value, inner, lines, name)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            inner = f"{place}[{index}]"
            lines[inner] = value.start_mark.line + 1
            _walk(value, inner, lines, name)
