"""One training from its last checkpoint to its end, with everything that may stop it on the way."""

from pathlib import Path
from typing import Any

from medllm.training.callbacks import last_checkpoint


def run(trainer: Any, stage: str, work: Path) -> Any:  # noqa: ANN401  one of our trainers; what its `train` gives
    """Train, from the last whole checkpoint if there is one, until all processes are done.

    Raises TrainingError when a signal stopped it, after a checkpoint.
    """
    resumed = last_checkpoint(work / "checkpoints")
    with trainer.checkpoints.listening():
        result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    trainer.checkpoints.end_if_stopped(stage)
    trainer.accelerator.wait_for_everyone()
    return result
