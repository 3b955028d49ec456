"""The pipeline: what a recipe asks for, which outputs exist on the Hub, and the build of the missing ones."""

from medllm.pipeline.build import BuildContext, Maker, make
from medllm.pipeline.plan import BuildPlan, StagePlan, make_plan
from medllm.pipeline.publish import publish
from medllm.pipeline.run import Launcher, run

__all__ = ["BuildContext", "BuildPlan", "Launcher", "Maker", "StagePlan", "make", "make_plan", "publish", "run"]
