"""What a reader must know of a workload to read its figures right. Goes into the progress and the manifest."""

from __future__ import annotations

from pathlib import Path

from pdbench.workload.spec import Workload
from pdbench.workload.texts import load_texts


def notes_of(workload: Workload) -> list[str]:
    """One sentence a matter; empty for a plain workload. Raises ``UsageError`` for prompts that cannot be read."""
    found = []
    if workload.closed:
        found.append(
            "closed loop: it measures capacity, not what users feel; a slow answer holds back the next request, so the "
            "waiting that arrivals of their own would meet is left out (coordinated omission)"
        )
    jitter = workload.arrivals.jitter
    if jitter not in (None, "off", "auto"):
        found.append(
            f"jitter {jitter}: every row of the trace is moved by a seeded, uniform draw within {jitter} "
            "(--jitter off replays the stamps as they are)"
        )
    prompts = workload.prompts
    if prompts is not None and prompts.file is not None:
        if prompts.tokenizer is None:
            found.append("planned prompt lengths are counts of words, for want of a --tokenizer; see usage for tokens")
        have, wanted = len(load_texts(Path(prompts.file))), workload.num_requests
        if have < wanted:
            found.append(f"{have} prompts serve {wanted} requests: they repeat, and a prefix cache can tell")
    return found


def planned_prompt_tokens(workload: Workload) -> str:
    """Where the planned prompt lengths come from: ``tokenizer``, ``words`` (an estimate), ``trace`` or ``law``."""
    if workload.prompts is not None and workload.prompts.tokenizer is not None:
        return "tokenizer"
    if workload.prompts is not None and workload.prompts.file is not None:
        return "words"
    return "trace" if workload.arrivals.process == "trace" and workload.prompt_tokens is None else "law"
