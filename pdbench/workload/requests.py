"""The measured part of a plan: from laws, from a trace, from sessions, or with real prompts. Columns of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, NS_PER_US
from pdbench.workload.arrivals import Floats, offsets_us
from pdbench.workload.lengths import Counts, draw_lengths, longest
from pdbench.workload.segments import Pieces, of_prefix, of_sessions, of_trace
from pdbench.workload.spec import Lengths, Workload
from pdbench.workload.texts import load_texts
from pdbench.workload.tokenizer import load_tokenizer
from pdbench.workload.traces import TraceRow, jitter_ns, read_slice
from pdbench.workload.traces.jitter import jittered

Ints = npt.NDArray[np.int64]
_AT_ONCE = 4096
_OUT = "leave it out, or take the key prompt out of the trace"


class Draws:
    """Uniform draws, one stream a purpose: a change of one law leaves what the others draw alone."""

    ARRIVALS, PROMPTS, OUTPUTS, WARM_PROMPTS, WARM_OUTPUTS, JITTER, SHARED, GROUPS, TEXTS, WARM_SHARED, WARM_GROUPS = (
        range(11)
    )

    def __init__(self, seed: int, pair: int) -> None:
        self._streams = np.random.SeedSequence([seed, pair]).spawn(11)

    def generator(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self._streams[purpose]))

    def uniforms(self, purpose: int, n: int) -> Floats:
        return self.generator(purpose).random(n)


@dataclass(frozen=True, slots=True)
class Requests:
    """``us``: due times in whole microseconds from the window's start, in order; lengths; what prompts share; real
    texts; and how many rows were longer than the model takes."""

    us: Floats
    prompt_tokens: Counts
    output_tokens: Counts
    segments: tuple[Pieces, ...] = ()
    texts: tuple[str, ...] = ()
    dropped: int = 0


def measured_requests(workload: Workload, draws: Draws, max_model_len: int | None) -> Requests:
    """The measured part. Raises ``UsageError``: see ``make_plan``."""
    if workload.arrivals.process == "trace":
        return _from_trace(workload, draws, max_model_len)
    if workload.prompts is not None and workload.prompts.file is not None:
        return _from_texts(workload, draws, max_model_len)
    _check_fits(workload, max_model_len)
    if workload.sessions is not None:
        return _from_sessions(workload, draws)
    us = _due(workload, draws)
    prompts = _lengths(workload.prompt_tokens, draws, Draws.PROMPTS, len(us))
    outputs = _lengths(workload.output_tokens, draws, Draws.OUTPUTS, len(us))
    return Requests(us, prompts, outputs, prefixes(workload, draws, prompts))


def prefixes(workload: Workload, draws: Draws, prompts: Counts, *, warmup: bool = False) -> tuple[Pieces, ...]:
    """The synthetic prefix of each request; ``()`` without one."""
    if workload.prefix is None:
        return ()
    shared, groups = (Draws.WARM_SHARED, Draws.WARM_GROUPS) if warmup else (Draws.SHARED, Draws.GROUPS)
    n = len(prompts)
    return of_prefix(workload.prefix, prompts.tolist(), draws.uniforms(shared, n), draws.uniforms(groups, n))


def counter(workload: Workload) -> Callable[[str], int]:
    """How a real text's tokens are counted: by the tokenizer, else its words (an estimate)."""
    if workload.prompts is not None and workload.prompts.tokenizer is not None:
        return load_tokenizer(workload.prompts.tokenizer).count
    return lambda text: len(text.split())


def _due(workload: Workload, draws: Draws, each: int = 1) -> Floats:
    n = -(-workload.num_requests // each)
    us = offsets_us(workload.arrivals, n, draws.uniforms(Draws.ARRIVALS, n), requests_each=each)
    if not len(us):
        raise UsageError("no request arrives before the rate falls to 0", where=f"workload '{workload.name}'")
    return us


def _lengths(law: Lengths | None, draws: Draws, purpose: int, n: int) -> Counts:
    if law is None:
        raise ValueError("a length law is missing")  # Workload refuses this earlier
    return draw_lengths(law, draws.uniforms(purpose, n))


def _own_lengths(law: Lengths | None, draws: Draws, purpose: int) -> Iterator[int] | None:
    """Without end, the same ones as in a plan of any size: one for each row of a trace, sent or not."""
    if law is None:
        return None
    if law.distribution == "list":
        return cycle(law.values or ())
    generator = draws.generator(purpose)
    return chain.from_iterable(draw_lengths(law, generator.random(_AT_ONCE)).tolist() for _ in repeat(None))


def _check_fits(workload: Workload, max_model_len: int | None) -> None:
    if max_model_len is None or workload.prompt_tokens is None or workload.output_tokens is None:
        return
    most = longest(workload.prompt_tokens) + longest(workload.output_tokens)
    if workload.sessions is not None:
        most *= workload.sessions.turns
    if most > max_model_len:
        raise UsageError(
            f"prompt + output can reach {most} tokens, longer than the model's maximum {max_model_len}",
            where=f"workload '{workload.name}'",
            remedy="shorten prompt_tokens or output_tokens, or serve the model with a longer maximum",
        )


def _from_sessions(workload: Workload, draws: Draws) -> Requests:
    """Sessions begin by the arrival process, so seldom that requests come at its rate; turns follow by think time."""
    sessions = workload.sessions
    if sessions is None:
        raise ValueError("the workload has no sessions")
    starts = _due(workload, draws, sessions.turns)
    n = len(starts) * sessions.turns
    fresh = _lengths(workload.prompt_tokens, draws, Draws.PROMPTS, n)
    outputs = _lengths(workload.output_tokens, draws, Draws.OUTPUTS, n)
    shared = prefixes(workload, draws, fresh[:: sessions.turns])
    pieces, prompts = of_sessions(sessions, fresh, outputs, shared)
    us = (starts[:, None] + np.arange(sessions.turns) * round(sessions.think_s * 1e6)).ravel()
    order = np.argsort(us, kind="stable")[: workload.num_requests]
    return Requests(us[order], prompts[order], outputs[order], tuple(pieces[place] for place in order))


def _from_texts(workload: Workload, draws: Draws, max_model_len: int | None) -> Requests:
    """Real prompts in a seeded order, from the start again when the file is through."""
    if workload.prompts is None or workload.prompts.file is None:
        raise ValueError("the workload has no prompts")
    known, count = load_texts(Path(workload.prompts.file)), counter(workload)
    us = _due(workload, draws)
    outputs = _lengths(workload.output_tokens, draws, Draws.OUTPUTS, len(us))
    order = draws.generator(Draws.TEXTS).permutation(len(known))
    lengths = {int(place): max(1, count(known[place])) for place in order[: len(us)]}
    room = (max_model_len or 1 << 31) - int(outputs.max())
    fitting = [int(place) for place in order[: len(us)] if lengths[int(place)] <= room]
    if not fitting:
        raise UsageError(
            f"none of the prompts fits the model's maximum of {max_model_len} tokens",
            where=workload.prompts.file,
            remedy="serve the model with a longer maximum, or shorten the prompts",
        )
    places = np.resize(fitting, len(us)).tolist()
    return Requests(
        us,
        np.asarray([lengths[place] for place in places], dtype=np.int32),
        outputs,
        texts=tuple(known[place] for place in places),
        dropped=len(lengths) - len(fitting),
    )


def _from_trace(workload: Workload, draws: Draws, max_model_len: int | None) -> Requests:
    """The slice of the workload's trace, as many rows as are wanted and fit the model."""
    rows, dropped, first_ns = _rows_that_fit(workload, draws, max_model_len)
    t_ns = np.array([row.t_ns - first_ns for row in rows], dtype=np.int64)
    if quantum := jitter_ns(workload.arrivals):
        t_ns = jittered(t_ns, quantum, draws.uniforms(Draws.JITTER, len(t_ns)))
        order = np.argsort(t_ns, kind="stable")
        rows, t_ns = [rows[place] for place in order], t_ns[order]
    prompts = [row.prompt_tokens for row in rows]
    texts = tuple(row.text for row in rows)
    if any(texts) and not all(texts):
        raise UsageError("some rows have a prompt and some have none", where=str(workload.arrivals.file))
    real = any(texts)
    if real and (workload.prompt_tokens is not None or workload.arrivals.length_scale != 1):
        where = "prompt_tokens" if workload.prompt_tokens is not None else "length_scale"
        raise UsageError(
            "the trace holds the prompts themselves, so their lengths are theirs", where=where, remedy=_OUT
        )
    return Requests(
        np.rint(t_ns * _stretch(workload, t_ns) / NS_PER_US),
        np.asarray(prompts, dtype=np.int32),
        np.asarray([row.output_tokens for row in rows], dtype=np.int32),
        () if real else of_trace(rows, prompts, workload.arrivals.length_scale),
        texts if real else (),
        dropped,
    )


def _rows_that_fit(workload: Workload, draws: Draws, max_model_len: int | None) -> tuple[list[TraceRow], int, int]:
    prompts = _own_lengths(workload.prompt_tokens, draws, Draws.PROMPTS)
    outputs = _own_lengths(workload.output_tokens, draws, Draws.OUTPUTS)
    kept: list[TraceRow] = []
    dropped, first_ns = 0, None
    for row in read_slice(workload.arrivals):
        first_ns = row.t_ns if first_ns is None else first_ns
        if prompts is not None:
            row = row._replace(prompt_tokens=next(prompts))
        if outputs is not None:
            row = row._replace(output_tokens=next(outputs))
        if max_model_len is not None and row.prompt_tokens + row.output_tokens > max_model_len:
            dropped += 1
            continue
        kept.append(row)
        if len(kept) == workload.num_requests:
            break
    if not kept:
        raise UsageError(
            f"none of the trace's {dropped} rows fits the model's maximum of {max_model_len} tokens",
            where=str(workload.arrivals.file),
            remedy="shorten them with --length-scale, or serve the model with a longer maximum",
        )
    return kept, dropped, first_ns or 0


def _stretch(workload: Workload, t_ns: Ints) -> float:
    """The factor on the trace's gaps: ``time_scale``, or what turns its mean rate into ``rate``."""
    span_ns = int(t_ns[-1] - t_ns[0])
    if workload.arrivals.rate is None or span_ns == 0:
        return workload.arrivals.time_scale
    natural = (len(t_ns) - 1) * NS_PER_S / span_ns
    return natural / workload.arrivals.rate
