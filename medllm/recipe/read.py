"""Reads a recipe from its file: YAML with line numbers, values, overrides and every error at once."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, SequenceNode

from medllm.errors import RecipeError
from medllm.recipe.errors import (
    Lines,
    RecipeFault,
    did_you_mean,
    error_of,
    new_name,
    own_place,
    schema_faults,
    with_new_keys,
    with_new_places,
)
from medllm.recipe.rounds import RoundPreferences, Rounds, inherit
from medllm.recipe.settings import Corpus, Evaluate, Grpo, Instructions, Mix, Preferences, Recipe, Sft, Teach
from medllm.recipe.validators import broken_rules, is_template

LARGEST = 64_000
"""Bytes of a recipe; the paper's own has about 5,000, and PyYAML needs about a second for 200,000."""

DEEPEST = 12
"""Levels of nesting; the schema itself has five."""


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


Tree = dict[str, Any]


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe; `overrides` are dotted keys as in `--set`. Raises one RecipeError with every fault."""
    tree, lines = parse_yaml(_text(path), str(path))
    return _sound(_overridden(tree, overrides or {}, "--set "), path, lines)


def recipe_of(tree: Tree, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Build a recipe from values instead of a file, checked in the same way; errors begin with `path`."""
    return _sound(_overridden(tree, overrides or {}, "--set "), path, {})


def with_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """Build the same recipe with other values, checked in the same way."""
    return recipe_of(recipe.tree, recipe.path, overrides)


def ablated(recipe: Recipe, name: str) -> Recipe:
    """Build the recipe of one row of the ablation table."""
    if name not in recipe.ablations:
        near = did_you_mean(name, list(recipe.ablations))
        raise RecipeError("recipe.unknown-ablation", f"ablations: unknown row `{name}`. {near}")
    return with_overrides(recipe, {**recipe.ablations[name], "ablations": {}})


def parse_override(text: str) -> tuple[str, Any]:
    """Read one `KEY=VALUE` of the command line; the value is read as in the file.

    >>> parse_override("rpo.rpo_alpha=0")
    ('rpo.rpo_alpha', 0)
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError("recipe.no-value-to-set", f"--set {text}: write KEY=VALUE, as `--set rpo.rpo_alpha=0`.")
    tree, _ = parse_yaml(f"value: {value}" if value.strip() else "value: null", f"--set {text}")
    return key.strip(), tree.get("value")


def _text(path: Path) -> str:
    if path.is_dir():
        raise RecipeError("recipe.is-a-folder", f"{path} is a folder. Give the path of a recipe file.")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            text = f"{path} has more than {LARGEST:,} bytes and is not read as a recipe. Give the path of a recipe."
            raise RecipeError("recipe.too-large", text)
        return content.decode("utf-8")
    except FileNotFoundError as fault:
        raise RecipeError(
            "recipe.no-such-file", f"{path} does not exist. The recipes of medllm are in recipes/."
        ) from fault
    except UnicodeDecodeError as fault:
        text = f"{path} is not UTF-8 text (byte {fault.start}). Save it as UTF-8."
        raise RecipeError("recipe.not-utf-8", text) from fault
    except OSError as fault:
        raise RecipeError("recipe.unreadable", f"{path} cannot be read: {fault.strerror}.") from fault


def _overridden(tree: Tree, overrides: Mapping[str, Any], who: str) -> Tree:
    changed = copy.deepcopy(tree)
    for key, value in overrides.items():
        if new := new_name(str(key)):
            raise RecipeError("recipe.renamed-key", f"{who}{key}: this key is now `{new}`.")
        block, parts = changed, str(key).split(".")
        for part in parts[:-1]:
            below = block.setdefault(part, {})
            if not isinstance(below, dict):
                text = f"{who}{key}: `{part}` is not a block and has no key `{parts[-1]}`."
                raise RecipeError("recipe.not-a-block", text)
            block = below
        block[parts[-1]] = value
    return changed


def _sound(tree: Tree, path: Path, lines: Lines) -> Recipe:
    recipe, faults = _build(tree, path)
    if not faults and recipe:
        faults = [fault for name in recipe.ablations for fault in _ablation_faults(recipe, name, path)]
    if faults or recipe is None:
        raise error_of(faults, str(path), with_new_places(lines))
    return recipe


def _build(tree: Tree, path: Path) -> tuple[Recipe | None, list[RecipeFault]]:
    """Check keys, values, then rules; without the faulty values, so that one reading reports every kind of fault."""
    tree, faults = with_new_keys(tree)
    try:
        recipe = _validate(tree, path)
    except ValidationError as invalid:
        faults += schema_faults(invalid, Recipe)
        try:
            rest = _validate(_stood_in(_pruned(tree, invalid)), path)
        except ValidationError:
            return None, faults
        return None, faults + [fault for fault in broken_rules(rest) if not _explained(fault, faults)]
    return recipe, faults + broken_rules(recipe)


def _explained(fault: RecipeFault, by: list[RecipeFault]) -> bool:
    # A value that was removed as faulty is not reported as missing too.
    return any(other.place.startswith(fault.place) for other in by)


def _validate(tree: Tree, path: Path) -> Recipe:
    recipe = Recipe.model_validate(tree)
    if recipe.chat_template is not None:
        # As text it goes wherever the recipe goes, a Job among others, where the file is not.
        template = template_text(recipe.chat_template, path.parent)
        recipe, tree = recipe.model_copy(update={"chat_template": template}), {**tree, "chat_template": template}
    recipe = _inherited(recipe)
    recipe._path, recipe._tree = path, tree
    return recipe


def template_text(given: str, folder: Path) -> str:
    """Read a chat template from its file, unless it is given as text; a file that cannot be read stays as it is."""
    if is_template(given):
        return given
    try:
        return (folder / given).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return given  # which a rule reports


_Dated = Corpus | Teach | Instructions | Preferences | Grpo | Evaluate
"""A block with the years of the exams that it asks or holds out."""


def _inherited(recipe: Recipe) -> Recipe:
    """Fill in the values that a stage takes from the recipe, so that its settings are complete."""
    corpus = recipe.corpus
    if corpus and corpus.cutoff is None:
        corpus = corpus.model_copy(update={"cutoff": recipe.cutoff})
    teach = recipe.teach and _with_held_out(recipe.teach, recipe)
    sft = recipe.sft and _with_held_out(recipe.sft, recipe)
    preferences = recipe.preferences and _with_held_out(recipe.preferences, recipe)
    grpo = recipe.grpo and _with_held_out(recipe.grpo, recipe)
    stages: dict[str, _Dated | None] = {"corpus": corpus, "teach": teach, "sft": sft, "preferences": preferences}
    stages |= {"grpo": grpo, "evaluate": recipe.evaluate}
    filled: dict[str, Any] = {name: stage and _with_years(stage, recipe) for name, stage in stages.items()}
    if recipe.rpo and recipe.rpo.mix:
        mix = _with_years(_with_held_out(recipe.rpo.mix, recipe), recipe)
        filled["rpo"] = recipe.rpo.model_copy(update={"mix": mix})
    for name, stage in {"cpt": recipe.cpt, "rpo": recipe.rpo, **filled}.items():
        other = isinstance(stage, Teach) and not stage.is_itself  # whose template is its own
        if recipe.chat_template is not None and getattr(stage, "chat_template", "none") is None and not other:
            filled[name] = stage.model_copy(update={"chat_template": recipe.chat_template})
    recipe = recipe.model_copy(update=filled)
    return recipe.model_copy(update={"rounds": _complete(recipe.rounds, recipe)}) if recipe.rounds else recipe


_Asking = TypeVar("_Asking", Teach, Sft, Mix, Preferences, RoundPreferences, Grpo)
"""A block that asks past questions, or learns from conversations."""


def _with_held_out(asking: _Asking, recipe: Recipe) -> _Asking:
    """Fill in the exams that are held out of past questions or conversations, and the cutoff."""
    held_out = asking.held_out
    if held_out is None:
        held_out = recipe.corpus.held_out if recipe.corpus else ()
    return asking.model_copy(update={"held_out": held_out, "cutoff": asking.cutoff or recipe.cutoff})


def _complete(rounds: Rounds, recipe: Recipe) -> Rounds:
    """Fill in what a round takes from the other blocks and from the recipe."""
    rounds = inherit(rounds, recipe.preferences, recipe.rpo, recipe.evaluate)
    preferences = _with_years(_with_held_out(rounds.preferences, recipe), recipe)
    parts: dict[str, Any] = {"preferences": preferences, "evaluate": _with_years(rounds.evaluate, recipe)}
    for name, part in {"rpo": rounds.rpo, **parts}.items():
        if part.chat_template is None:
            parts[name] = part.model_copy(update={"chat_template": recipe.chat_template})
    return rounds.model_copy(update=parts)


def _with_years(stage: _Dated, recipe: Recipe) -> _Dated:
    """Fill in the years of the exams that a stage asks or holds out."""
    names = stage.benchmarks if isinstance(stage, Evaluate) else stage.held_out or ()
    stated = {name: exam.years for name, exam in recipe.exams.items() if exam.years and name in names}
    return stage.model_copy(update={"exam_years": {**stated, **stage.exam_years}})


def _pruned(tree: Tree, invalid: ValidationError) -> Tree:
    rest = copy.deepcopy(tree)
    for error in invalid.errors():
        block: Any = rest
        *path, last = own_place(error["loc"])
        for part in path:
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict):
            block.pop(last, None)
    return rest


_STAND_INS: tuple[Any, ...] = (1, "base", {"r": 1, "lora_alpha": 1}, {}, [], "2017-12-31", ["base"])


def _stood_in(tree: Tree) -> Tree:
    """Fill missing keys with values of the right type, so that the rules can check the other keys."""
    try:
        Recipe.model_validate(tree)
    except ValidationError as invalid:
        for error in invalid.errors():
            _stand_in(tree, error["loc"])
    return tree


def _stand_in(tree: Tree, loc: tuple[int | str, ...]) -> None:
    block: Any = tree
    for part in own_place(loc)[:-1]:
        block = block.get(part) if isinstance(block, dict) else None
    if not isinstance(block, dict):
        return
    for value in _STAND_INS:
        block[loc[-1]] = value
        try:
            Recipe.model_validate(tree)
            return
        except ValidationError as invalid:
            if all(error["loc"] != loc for error in invalid.errors()):
                return


def _ablation_faults(recipe: Recipe, name: str, path: Path) -> list[RecipeFault]:
    place = f"ablations.{name}"
    try:
        tree = _overridden(recipe.tree, {**recipe.ablations[name], "ablations": {}}, "")
    except RecipeError as fault:
        return [RecipeFault(fault.code, place, str(fault))]
    return [RecipeFault(fault.code, place, f"{fault.place}: {fault.text}") for fault in _build(tree, path)[1]]
