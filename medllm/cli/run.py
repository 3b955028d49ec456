"""The commands of the pipeline: `run`, `ablate`, `status`, `trace`, `clean` and `forget`."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medllm.cli.app import (
    HubOption,
    JsonOption,
    OnOption,
    RecipeFile,
    RestoreOption,
    SetOption,
    WorkOption,
    YesOption,
    app,
)

if TYPE_CHECKING:
    from medllm.cli.console import Reporter
    from medllm.hub import Hub, Input
    from medllm.pipeline import StagePlan
    from medllm.recipe import Recipe


@contextmanager
def open_session(hub: str | None, namespace: str | None, on: str) -> "Iterator[tuple[Reporter, Hub]]":
    """Open a reporter and a connection to the Hub; Ctrl-C ends in one line."""
    from medllm.cli.console import handle_interrupt, open_reporter
    from medllm.hub import connect

    with (
        open_reporter() as reporter,
        handle_interrupt(),
        connect(hub, namespace, jobs=on == "jobs", bars=False, say=reporter.say) as there,
    ):
        yield reporter, there


@app.command()
def run(  # noqa: PLR0913  a command takes its options one by one
    recipe: RecipeFile,
    stages: Annotated[Optional[list[str]], typer.Argument(help="Only these, and what they need.")] = None,  # noqa: UP045
    hub: HubOption = None,
    on: OnOption = "local",
    set_: SetOption = [],  # noqa: B006  typer copies it
    work: WorkOption = Path("runs"),
    yes: YesOption = False,
    restore: RestoreOption = False,
    keep_every: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--keep-every", metavar="SECONDS", help="Push work in progress so often: for machines that go away."
        ),
    ] = None,
) -> None:
    """Build what is missing, in order, and publish it.

    Each stage: resolve, pull, build, card, push, tag. A run that was interrupted resumes where it stopped. A recipe
    that only evaluates and has no `namespace` publishes nothing: its results are a folder.
    """
    from medllm.cli.console import confirm_plan
    from medllm.launch import launcher, refuse_unfit
    from medllm.pipeline import BuildContext, make_plan, publish
    from medllm.pipeline import run as run_plan
    from medllm.pipeline.facts import evaluation_summary
    from medllm.pipeline.preflight import check_before_work
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
    if sound.namespace is None:
        run_into_folder(sound, hub, work, on, tuple(stages or ()))
        return
    launch = launcher(on)
    with open_session(hub, sound.namespace, on) as (reporter, there):
        plan = make_plan(sound, there, tuple(stages or ()))
        refuse_unfit(on, plan, there)
        check_before_work([plan], there, work, here=on == "local")
        bench = BuildContext(there, work, reporter.say, reporter.progress, keep_every)
        made = run_plan(plan, bench, launch, confirm_plan(reporter, there, work, yes=yes, restore=restore))
        plan = plan.renewed(there)  # a stage that was rebuilt with equal content left others as they were
        if not stages:
            publish(plan, made, bench)
        summary = evaluation_summary(plan, made, there, work)
    for stage, artifact in made.items():
        print(f"{stage}\t{artifact}", flush=True)
    for line in summary or [f"Where each stage came from: medllm status {recipe}{f' --hub {hub}' if hub else ''}"]:
        print(line, file=sys.stderr)


def run_into_folder(recipe: "Recipe", hub: str | None, work: Path, on: str, stages: tuple[str, ...]) -> None:
    """Run a recipe that only evaluates and has no namespace: on this machine, and the results are a folder."""
    from medllm.cli.evaluate import evaluate_in_folder
    from medllm.errors import RecipeError
    from medllm.pipeline.plan import needed_stages

    needed_stages(recipe, stages)
    if on != "local":
        raise RecipeError(
            "recipe.no-namespace",
            f"{recipe.path}: `--on {on}` hands results over on a Hub, and there is no `namespace`. Add one.",
        )
    evaluate_in_folder(recipe, hub, work)


@app.command()
def ablate(  # noqa: PLR0913
    recipe: RecipeFile,
    hub: HubOption = None,
    on: OnOption = "local",
    set_: SetOption = [],  # noqa: B006
    work: WorkOption = Path("runs"),
    yes: YesOption = False,
    restore: RestoreOption = False,
    plot: Annotated[Optional[Path], typer.Option("--plot", help="Draw the rows to this .svg, .png or .pdf.")] = None,  # noqa: UP045
    json_: JsonOption = False,
) -> None:
    """Build the rows of an ablation table and compare them.

    The rows are the recipe and its `ablations`; what they share is built once, and every comparison is paired.
    """
    from medllm.cli.console import confirm_plans
    from medllm.launch import launcher, refuse_unfit
    from medllm.pipeline import BuildContext, BuildPlan
    from medllm.pipeline.ablation import ablate as ablate_recipe
    from medllm.pipeline.ablation import draw_rows
    from medllm.pipeline.preflight import check_before_work
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
    launch = launcher(on)
    with open_session(hub, sound.namespace, on) as (reporter, there):

        def ask(plans: Mapping[str, BuildPlan]) -> None:
            for plan in plans.values():
                refuse_unfit(on, plan, there)
            check_before_work(plans.values(), there, work, here=on == "local")
            confirm_plans(reporter, there, work, yes=yes, restore=restore)(plans)

        table = ablate_recipe(sound, BuildContext(there, work, reporter.say, reporter.progress), launch, ask)
    if plot:
        draw_rows(table, plot)
    print(json.dumps(table.as_json(), ensure_ascii=False, indent=2) if json_ else "\n".join(table.lines()))


@app.command()
def status(
    recipe: RecipeFile,
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006
    work: WorkOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Show what is built, and why anything would be rebuilt.

    Each stage: its revision on the Hub and what it was built from.
    """
    from medllm.cli.console import log
    from medllm.hub import connect
    from medllm.pipeline import make_plan
    from medllm.pipeline.pushed import deleted_versions
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
    with connect(hub, sound.namespace, say=log) as there:
        plan = make_plan(sound, there)
        deleted = deleted_versions(plan, there, work)
        lines = [_status_of(item, deleted.get(item.stage)) for item in plan.items]
    if json_:
        print(json.dumps(lines, ensure_ascii=False, indent=2))
        return
    for line in lines:
        print(f"{line['stage']:<12}{line['exists_as'] or line['state']}")
        for source in line["inputs"]:
            print(f"{'':<12}  from {source}")


def _status_of(item: "StagePlan", deleted: str | None) -> dict[str, Any]:
    from medllm.cli.console import state_of

    standing = item.standing
    inputs = standing.provenance.inputs if standing and standing.provenance else item.inputs
    return {
        "stage": item.stage,
        "repo_id": item.repo_id,
        "digest": item.digest,
        "exists_as": str(standing.artifact) if standing else None,
        "state": "exists" if standing else state_of(item, deleted),
        "deleted": deleted,
        "why": item.why,
        "inputs": [f"{source.reference} = {_where(source)}" for source in inputs],
    }


def _where(source: "Input") -> str:
    if source.repo_id:
        return f"{source.repo_id}@{source.commit[:12]}" if source.commit else f"{source.repo_id}, to be built"
    return f"folder {(source.digest or '')[:19]}"


@app.command()
def trace(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME[@REVISION]", help="A repository.", show_default=False)],
    row: Annotated[Optional[str], typer.Argument(help="A row of it: its id, question_id or locator.")] = None,  # noqa: UP045
    kind: Annotated[str, typer.Option("--kind", metavar="model|dataset|space", help="What it is.")] = "",
    hub: HubOption = None,
    work: WorkOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Show where a model or row came from, and what saw it.

    Names the datasets and models that a row reached, and the folders of this disk, for a take-down (medllm forget).
    """
    from medllm.cli.console import log
    from medllm.hub import connect
    from medllm.pipeline.forget import local_places
    from medllm.pipeline.trace import owner_of, trace_of

    with connect(hub, owner_of(repo), say=log) as there:
        answer = trace_of(there, repo, row, kind)
        places = local_places(there, repo, row, work) if row else []
    if json_:
        here = {"on_this_disk": [{"path": str(path), "why": why} for path, why in places]}
        print(json.dumps(answer.as_json() | here, ensure_ascii=False, indent=2))
        return
    print("\n".join([*answer.lines(), *(f"on this disk: {path} ({why})" for path, why in places)]))


@app.command()
def clean(
    recipe: RecipeFile,
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    work: WorkOption = Path("runs"),
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Unfinished work can go, too.")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="Replies kept for later runs can go, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what can go.")] = False,
    json_: JsonOption = False,
) -> None:
    """List what runs left on this disk, and free it with --yes.

    An output can go when the Hub has it. The blobs of an embedded Hub are freed by `medllm hub gc`.
    """
    from medllm.cli.console import log
    from medllm.hub import connect
    from medllm.pipeline import make_plan
    from medllm.pipeline.clean import list_places, remove_places
    from medllm.pipeline.progress import format_bytes
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
    with connect(hub, sound.namespace, say=log) as there:
        places = list_places(make_plan(sound, there), there, work, unfinished=unfinished, answers=answers)
        removed = [str(place.path) for place in remove_places(places)] if yes else []
    if json_:
        rows = [
            {"path": str(place.path), "bytes": place.size, "state": place.state, "removable": place.removable}
            for place in places
        ]
        print(json.dumps({"places": rows, "removed": removed}, ensure_ascii=False, indent=2))
        return
    for folder in places:
        word = "removed" if str(folder.path) in removed else "can go" if folder.removable else "stays"
        print(f"{format_bytes(folder.size):>10}  {word:<8}{folder.path}: {folder.reason}")
    free = format_bytes(sum(place.size for place in places if place.removable))
    print(f"{free} freed" if yes else f"{free} can be freed: run the same command with --yes")


@app.command()
def forget(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A corpus, pairs or a source.", show_default=False)],
    rows: Annotated[list[str], typer.Argument(help="Its rows: an id, question_id or locator.", show_default=False)],
    hub: HubOption = None,
    work: WorkOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
) -> None:
    """Withdraw rows, and delete all that was made from them.

    Lists the versions, branches, folders and caches that hold a row or learnt it, in the order of their deletion, each
    with its reason; --yes deletes them, and later corpora drop the row as `forgotten`. Interrupted, it goes on when
    you type it again.
    """
    from medllm.cli.console import handle_interrupt, log
    from medllm.hub import connect
    from medllm.pipeline.forget import carry_out, left_to_people, withdrawal
    from medllm.pipeline.trace import owner_of

    with handle_interrupt(), connect(hub, owner_of(repo), say=log) as there:
        for row in rows:
            plan = withdrawal(there, repo, row, work)
            print(f"{row}, in {', '.join(sorted({str(row.artifact) for row in plan.rows}))}:")
            print("\n".join(plan.lines()))
            if yes:
                for line in carry_out(there, plan):
                    log(line)
            print("Left to people:\n" + "\n".join(f"- {line}" for line in left_to_people(there, plan)))
    if not yes:
        print("Nothing was deleted: run the same command with --yes")
