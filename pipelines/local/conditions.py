"""The condition of a branch of a local run: compared, never evaluated as Python, as kfp.local 2.17 does it."""

import re

from kfp.local.io import IOStore

# What the compiler makes of `dsl.If(task.output == "text")`; the pipelines of this project have no other condition.
CONDITION = re.compile(r"inputs\.parameter_values\['pipelinechannel--(?P<task>[a-z0-9-]+)-Output'\] == '(?P<text>\w+)'")


def holds(condition: str, io_store: IOStore) -> bool:
    """Tell whether a task's output is the text that a condition names; RuntimeError for a condition of another form.

    It stands in for kfp's own function (2.17), which pastes the output, whatever it is, into what goes through `eval`.
    """
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise RuntimeError(f"condition {condition!r}: expected a task's output == 'text'")
    return bool(io_store.get_task_output(found["task"], "Output") == found["text"])
