"""The pipeline: what a recipe asks for, what of it stands on the Hub, and the making of the rest."""

from medllm.pipeline.build import Bench, Maker, make
from medllm.pipeline.plan import Item, Plan, make_plan
from medllm.pipeline.publish import publish
from medllm.pipeline.run import Launcher, run

__all__ = ["Bench", "Item", "Launcher", "Maker", "Plan", "make", "make_plan", "publish", "run"]
