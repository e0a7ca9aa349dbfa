"""How one global schedule is shared out: entry i goes to the worker whose rank is i mod ranks. Pure.

The union of all shares is the job itself, each request keeps its own index (so its prompt), and interleaving
gives every worker the same mix and the same rate over time. Of a closed loop the *streams* are shared out: stream
s belongs to rank s mod ranks, and the requests follow the streams.
"""

from __future__ import annotations

from itertools import compress
from typing import Any, get_origin

from msgspec.structs import fields, replace

from pdbench.errors import UsageError
from pdbench.load.job import Job

_COLUMNS = tuple(one.name for one in fields(Job) if get_origin(one.type) is list and one.name != "concurrency")
"""Of a job: the lists with one entry a request (or none)."""


def part_of(count: int, rank: int, ranks: int) -> int:
    """Of ``count`` things dealt out in turn, how many ``rank`` gets; over all ranks they sum to ``count``."""
    return count // ranks + (rank < count % ranks)


def share(job: Job, rank: int, ranks: int) -> Job | None:
    """The part of ``rank``; None when there is nothing for it (fewer requests or streams than workers).

    Raises ``UsageError`` when ``max_concurrency`` has not one slot for each worker, or when a closed loop goes on with
    fewer streams than there are workers: what belongs to one that has no stream any more would never be offered.
    """
    if ranks == 1:
        return job
    if job.max_concurrency is not None and job.max_concurrency < ranks:
        what = f"{job.max_concurrency} open requests cannot be shared among {ranks} workers"
        raise UsageError(what, where="--max-concurrency", remedy="raise it, or use fewer workers")
    dealt = range(len(job))
    if job.concurrency:
        peak, last = max(1, max(streams for _, streams in job.concurrency)), job.concurrency[-1][1]
        if 0 < last < min(peak, ranks):
            streams = f"{last} stream{'s' * (last > 1)}"
            what = f"a closed loop that goes on with {streams} cannot be shared among {ranks} workers"
            remedy = f"use at most {last} worker{'s' * (last > 1)}, or end it with a duration"
            raise UsageError(what, where="--processes", remedy=remedy)
        mine = [place % peak % ranks == rank for place in dealt]
    else:
        mine = [place % ranks == rank for place in dealt]
    if not any(mine):
        return None
    changes: dict[str, Any] = {name: list(compress(getattr(job, name), mine)) for name in _COLUMNS}
    changes["concurrency"] = [(at_ns, part_of(streams, rank, ranks)) for at_ns, streams in job.concurrency]
    if job.max_concurrency is not None:
        changes["max_concurrency"] = part_of(job.max_concurrency, rank, ranks)
    return replace(job, **changes)
