"""The pipeline: what a recipe asks for, which outputs exist on the Hub, and the build of the missing ones."""

from medllm.pipeline.build import BuildContext, Launcher, Maker, make, run
from medllm.pipeline.plan import BuildPlan, StagePlan, make_plan
from medllm.pipeline.publish import publish

__all__ = ["BuildContext", "BuildPlan", "Launcher", "Maker", "StagePlan", "make", "make_plan", "publish", "run"]
