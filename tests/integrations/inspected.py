"""Runs the Inspect tasks with a model that answers from a list: `python inspected.py TASKS KEYS PROMPTS LOGS`."""

import importlib.util
import json
import sys
from pathlib import Path

import inspect_ai
from inspect_ai.model import ModelOutput, ModelUsage, get_model

if __name__ == "__main__":
    tasks, keys, prompts, logs = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("igakuqa", tasks)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    replies = json.loads(Path(keys).read_text("utf-8"))

    def reply(messages, *_):
        """Answer by the last message, which holds the question and no worked example."""
        output = ModelOutput.from_content("mockllm/half", replies[messages[-1].text])
        output.usage = ModelUsage()  # or it would count tokens, for which it downloads a vocabulary
        return output

    model = get_model("mockllm/half", custom_outputs=reply)
    asked = [module.igakuqa_plain(prompts), module.igakuqa_explain(prompts)]
    done = inspect_ai.eval(asked, model=model, log_dir=logs, display="none")
    assert [one.status for one in done] == ["success", "success"], [one.error for one in done]
