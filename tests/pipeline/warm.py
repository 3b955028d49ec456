"""Imports what the stages import when they work, so that a process forked from here starts at once."""
# ruff: noqa: F401

import medllm.corpus.curate
import medllm.generation.engine.local
import medllm.launch.local
import medllm.localhub
import medllm.pipeline.build
import medllm.stages.cpt
import medllm.stages.evaluate
import medllm.stages.merge
import medllm.stages.preferences
import medllm.stages.rpo
import medllm.training.cpt
import medllm.training.rpo
import tests.pipeline.real
