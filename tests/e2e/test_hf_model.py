"""A Hugging Face directory, served: its own tokenizer and weights, and the tokens that transformers would choose."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.serving import serving

pytestmark = pytest.mark.e2e
VOCAB = 300


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small random Llama and a tokenizer trained on one sentence, in one directory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from transformers import LlamaConfig, LlamaForCausalLM
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    directory = tmp_path_factory.mktemp("llama")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    model: Any = LlamaForCausalLM(config)
    model.eval()
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 4, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory, model


def test_the_served_tokens_are_those_of_transformers(saved: tuple[Path, Any]) -> None:
    directory, model = saved
    backend = {
        "name": "hf",
        "engine": "pdserve",
        "model": {"path": str(directory), "dtype": "float32"},
        "workers": [{"role": "prefill", "device": 0, "max_batch": 2}, {"role": "decode", "device": 1, "max_batch": 2}],
    }
    prompt = [7, 42, 99, 123, 5]
    with torch.inference_mode():
        tokens = list(prompt)
        for _ in range(12):  # greedy by hand: what `generate` does, without its options
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    with serving(backend) as server:
        body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        reply = server.post("/v1/completions", body).json
        assert reply["usage"] == {"prompt_tokens": 5, "total_tokens": 17, "completion_tokens": 12}
        from tokenizers import Tokenizer

        text = Tokenizer.from_file(str(directory / "tokenizer.json")).decode(tokens[5:])
        assert reply["choices"][0]["text"].strip("�") == text.strip("�")
        assert server.get("/v1/models").json["data"][0]["max_model_len"] == 256
        words = server.post("/v1/completions", body | {"prompt": "the quick brown fox"}).json
        assert 4 <= words["usage"]["prompt_tokens"] < len("the quick brown fox")
