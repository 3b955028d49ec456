"""Imports what the stages import when they work, so that a process forked from here starts at once."""
# ruff: noqa: F401

import medllm.corpus.curate
import medllm.generation.local
import medllm.launch.here
import medllm.localhub
import medllm.pipeline.making
import medllm.stages.cpt
import medllm.stages.evaluate
import medllm.stages.merge
import medllm.stages.preferences
import medllm.stages.rpo
import medllm.training.continued
import medllm.training.preference
import tests.pipeline.real
