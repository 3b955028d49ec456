"""A pipeline whose seven stages are small and real: folders in, one folder out, on the embedded Hub."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from medllm.exam.record import write_records
from medllm.hub import Hub, connect
from medllm.pipeline import BuildContext, BuildPlan, StagePlan, gate, lineage, make, make_plan, publish, run
from medllm.recipe import Recipe, parse_override, read_recipe
from tests.pipeline import toy
from tests.pipeline.finished import finished  # noqa: F401  a fixture


@dataclass
class Workshop:
    """A recipe's folder, a Hub and stages whose output tells exactly what they were given."""

    folder: Path
    hub: Hub
    worked: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    facts: dict[str, dict] = field(default_factory=dict)
    runs: str = "runs"
    before_the_end: Callable[[str, Path], None] = lambda stage, part: None

    def recipe(self, *overrides: str) -> Recipe:
        """The recipe with these overrides."""
        return read_recipe(self.folder / "toy.yaml", dict(parse_override(one) for one in overrides))

    def plan(self, *overrides: str, wanted: tuple[str, ...] = ()) -> BuildPlan:
        """What is left to do."""
        return make_plan(self.recipe(*overrides), self.hub, wanted)

    def bench(self) -> BuildContext:
        """Work here, and remember what was said."""
        return BuildContext(self.hub, self.folder / self.runs, self.messages.append)

    def run(self, *overrides: str, wanted: tuple[str, ...] = ()):
        """Make what is missing."""
        return run(self.plan(*overrides, wanted=wanted), self.bench(), self.launch, lambda plan: None)

    def publish(self, *overrides: str):
        """Make what is missing and bring cards and settings in line."""
        plan = self.plan(*overrides)
        made = run(plan, self.bench(), self.launch, lambda plan: None)
        publish(plan, made, self.bench())
        return made

    def launch(self, plan: BuildPlan, item: StagePlan, made, bench: BuildContext) -> None:
        """Make one stage by one of the toy makers."""
        make(plan, item, made, self.maker(item.stage), bench)

    def maker(self, stage: str):
        """A stage that writes down which sources it saw."""

        def work(settings, sources, out: Path) -> None:
            self.worked.append(stage)
            part = out.with_name(out.name + ".part")
            part.mkdir(exist_ok=True)
            seen = {name: sorted(path.name for path in place.iterdir()) for name, place in sources.items()}
            (part / "seen.json").write_text(json.dumps(seen, sort_keys=True))
            toy.write_content(stage, settings, sources, part)
            self.before_the_end(stage, part)
            if stage == "evaluate":
                write_records(toy.answers(settings), part / "records" / "all.parquet")
            (part / "facts.json").write_text(json.dumps({"stage": stage, **self.facts.get(stage, {})}))
            part.replace(out)

        return work


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    toy.lay_out(tmp_path)
    monkeypatch.setattr(lineage, "TEMPLATES", dict(lineage.TEMPLATES))
    monkeypatch.setattr(gate, "CHECKS", dict(gate.CHECKS))
    toy.without_dataset_cards()
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        yield Workshop(tmp_path, hub)
