"""What a test sends as a Job: the toy stage `corpus`, whose first Job dies, or lingers, once its work is kept."""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

KEPT = threading.Event()


def maker(settings, sources, out: Path) -> None:
    """Go on from the step that an earlier Job left; the Job that takes the first one dies once that is kept."""
    part = out.with_name(out.name + ".part")
    part.mkdir(exist_ok=True)
    for step in range(2):
        if not (part / f"step-{step}").exists():
            (part / f"step-{step}").write_text(os.environ["JOB_ID"])
            print(f"step {step}; the token is {os.environ['HF_TOKEN']}", flush=True)
            if step == 0:
                KEPT.wait()
                if (Path(os.environ["MEDLLM_FOLDER"]) / "linger").exists():
                    time.sleep(9999)
                os._exit(9)
    (part / "facts.json").write_text("{}")
    part.replace(out)


def say(text: str) -> None:
    """Tell the log, and notice when the work is safe."""
    print(text, flush=True)
    if "is kept on the Hub" in text:
        KEPT.set()


def main() -> None:
    """Be the Job: run the stage with the code that was pushed."""
    from huggingface_hub import snapshot_download

    repo_id, _, revision = os.environ["MEDLLM_CODE"].partition("@")
    sys.path.insert(0, snapshot_download(repo_id, repo_type="dataset", revision=revision))
    from medllm.hub import connect
    from medllm.pipeline import BuildContext, gate, lineage, make, make_plan, run
    from medllm.recipe import read_recipe

    lineage.TEMPLATES.clear()  # a toy has none of the facts that a card tells
    gate.CHECKS.clear()

    def launch(plan, item, made, bench) -> None:
        make(plan, item, made, maker, bench)

    with connect() as hub:
        recipe = read_recipe(Path(os.environ["MEDLLM_FOLDER"]) / "toy.yaml")
        bench = BuildContext(hub, Path(tempfile.mkdtemp()), say, keep_every=float(os.environ["MEDLLM_KEEP_EVERY"]))
        run(make_plan(recipe, hub, ("corpus",)), bench, launch, lambda plan: None)


if __name__ == "__main__":
    main()
