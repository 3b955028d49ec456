"""The pipeline: what a recipe asks for, what of it stands on the Hub, and the making of the rest."""

from medllm.pipeline.build import BuildContext, Maker, make
from medllm.pipeline.plan import BuildPlan, StagePlan, make_plan
from medllm.pipeline.publish import publish
from medllm.pipeline.run import Launcher, run

__all__ = ["BuildContext", "BuildPlan", "Launcher", "Maker", "StagePlan", "make", "make_plan", "publish", "run"]
