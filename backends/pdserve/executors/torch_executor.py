"""The executor that computes: a Llama, its KV slab, and sampling, on one CPU or GPU.

    executor = build_executor(preset="llama-30m", path=None, seed=0, dtype="bfloat16",
                              device="cpu", slots=8, max_len=1024)
    tokens = executor.run(step.chunks)

The caller decides on threads and cores (a worker pins itself before it builds this); nothing here does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pdserve.executors.sampling import sample
from pdserve.model.attention import AttentionBackend
from pdserve.model.batch import Batch, Span, make_batch
from pdserve.model.config import ModelShape, dtype_bytes, resolve_shape
from pdserve.model.kv import KVSlab
from pdserve.model.llama import Llama
from pdserve.model.weights import DTYPES, load_weights, random_weights
from pdserve.sequence import Chunk

_WARM_PROMPT = 512


class TorchExecutor:
    """Runs steps. ``kv`` is public: the transfer connectors read and write it."""

    def __init__(
        self,
        shape: ModelShape,
        weights: Mapping[str, Tensor],
        *,
        device: str,
        dtype: torch.dtype,
        slots: int,
        max_len: int,
        attention: AttentionBackend | None = None,
        prepack: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.shape = shape
        with torch.inference_mode():
            typed = {name: tensor.to(dtype) for name, tensor in weights.items()}
            self.model = Llama(shape, typed, device=self.device, attention=attention, prepack=prepack)
        # Outside inference mode: connectors copy into the slab from wherever they run.
        self.kv = KVSlab(shape, slots, max_len, dtype, self.device)

    def run(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """See ``Executor``. Raises ``ValueError`` for a chunk outside its slot or beyond what is known."""
        if not chunks:
            return []
        batch = make_batch([self._span(chunk) for chunk in chunks], self.device)
        ordered = [chunks[i] for i in batch.order]
        sampling = [chunk for chunk in ordered if chunk.samples]
        with torch.inference_mode():
            logits = self.model.forward(batch, self.kv)
            ends = [chunk.start + chunk.count for chunk in sampling]
            tokens = sample(logits, [c.seq.sampling for c in sampling], ends) if sampling else []
        if not sampling and self.device.type == "cuda":
            # Sampling waits for the GPU. A step that samples nothing would only be queued: its end, and with it the
            # step log and the device's busy time, would be stamped before the work was done.
            torch.cuda.synchronize(self.device)
        found = iter(tokens)
        result: list[int | None] = [None] * len(chunks)
        for place, chunk in zip(batch.order, ordered, strict=True):
            if chunk.samples:
                result[place] = next(found)
        return result

    def logits(self, spans: Sequence[Span]) -> list[Tensor]:
        """Teacher-forced: the logits ``[tokens, vocab]`` of every position of each span, in order. For
        comparing schedules (tests, exactness checks); writes the cache as ``run`` does."""
        batch = make_batch(spans, self.device)
        with torch.inference_mode():
            rows = self.model.forward(batch, self.kv, all_rows=True)
        lengths = [len(span.tokens) for span in batch.spans]
        pieces = dict(zip(batch.order, torch.split(rows, lengths), strict=True))
        return [pieces[i] for i in range(len(spans))]

    def warm_up(self) -> None:
        """Run the step sizes to come once: matrix kernels are generated at the first use of each size.

        Writes into the slots; call it before any sequence is admitted.
        """
        with torch.inference_mode():
            for count in range(1, self.kv.slots + 1):
                self._warm([Span(slot, 0, (0,), True) for slot in range(count)])
            prompt = min(_WARM_PROMPT, self.kv.max_len)
            self._warm([Span(0, 0, (0,) * prompt, True)])

    def _warm(self, spans: Sequence[Span]) -> None:
        batch: Batch = make_batch(spans, self.device)
        self.model.forward(batch, self.kv).argmax(-1).tolist()

    def _span(self, chunk: Chunk) -> Span:
        seq, end = chunk.seq, chunk.start + chunk.count
        if not 0 <= seq.slot < self.kv.slots:
            raise ValueError(f"{seq.id}: slot {seq.slot} is not in 0 .. {self.kv.slots - 1}")
        if end > self.kv.max_len:
            raise ValueError(f"{seq.id}: position {end} is beyond a slot's {self.kv.max_len}")
        if end > len(seq.tokens):
            raise ValueError(f"{seq.id}: position {end} is beyond its {len(seq.tokens)} known tokens")
        return Span(seq.slot, chunk.start, tuple(seq.tokens[chunk.start : end]), chunk.samples)


def build_executor(
    *, preset: str | None, path: str | None, seed: int, dtype: str, device: str, slots: int, max_len: int
) -> TorchExecutor:
    """An executor for a preset (random weights by ``seed``) or a Hugging Face directory ``path``.

    ``dtype``: "bfloat16" or "float32"; ``device``: "cpu" or "cuda:N"; ``max_len``: positions per slot.
    Raises ``ModelError`` when the model cannot be served.
    """
    dtype_bytes(dtype)  # refuses an unknown one by name
    shape = resolve_shape(preset=preset, path=path)
    torch_dtype = DTYPES[dtype]
    weights = random_weights(shape, seed, torch_dtype) if path is None else load_weights(Path(path), shape, torch_dtype)
    return TorchExecutor(shape, weights, device=device, dtype=torch_dtype, slots=slots, max_len=max_len)
