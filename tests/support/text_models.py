"""Small untrained transformers language models, built from configurations, and random texts for them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from variants import perturbed

from sinkablate.vit.sink_logits import implementations
from sinkablate.vit.tokens import TextTokenType

VOCABULARY = 50
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {},
    "DistilBert": {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "Electra": {"embedding_size": 48},
    "Esm": {},
    "NomicBert": {},
    "EuroBert": GROUPED,
    "SiglipText": {},
    "ModernBert": {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
}
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 40},
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED,
    "Gemma": GROUPED,
    "Mistral": GROUPED | {"sliding_window": 6},
    "ModernBertDecoder": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 48},
    "CLIPText": {},
    "GPTBigCode": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 40},
    "GPTNeoX": {"use_parallel_residual": False},
    "GptOss": GROUPED | EXPERTS | {"sliding_window": 6},
}
MODELS = ENCODERS | DECODERS
"""Name in transformers -> fields of the configuration."""


def untrained(name: str, attention: str | None = None, **fields: Any) -> Any:
    """Build a model of two blocks in eval mode whose heads attend to some tokens more than to others."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZE, **MODELS.get(name, {}), **fields})
    model_class = getattr(transformers, f"{name}Model")
    chosen = implementations(model_class) | ({"attn_implementation": attention} if attention else {})
    model = model_class._from_config(config, **chosen)
    return perturbed(model).float().eval()


def texts(count: int = 2, length: int = 12, *, causal: bool = False) -> Tensor:
    """Random token ids and types of texts of equal length, (count, 2, length)."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(3, VOCABULARY, (count, length), generator=generator)
    types = torch.where(ids < 15, TextTokenType.PUNCTUATION, TextTokenType.WORD)
    types[:, 0] = TextTokenType.BOS if causal else TextTokenType.CLS
    types[:, -1] = TextTokenType.WORD if causal else TextTokenType.SEP
    return torch.stack((ids, types), dim=1)


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", "!", "the", "a", "cat", "dog", "sat", "on", "mat", "ran", "it")
"""Vocabulary of the tokenizer of `save_folder`."""


def save_folder(path: Path, name: str = "Bert") -> Path:
    """Save an untrained model with a tokenizer, in the form that `diagnose --hf` reads."""
    untrained(name).save_pretrained(path)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if name not in DECODERS:
        special = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
        words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    return path
