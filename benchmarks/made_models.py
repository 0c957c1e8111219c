"""Texts, tokenizers and models that are made on the spot: shapes of real ones, weights at random."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_WORDS = 20_000
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
#: Turns as the training wants them, in ChatML.
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Of a transformer: its width, its layers and its heads."""

    width: int
    layers: int
    heads: int
    #: Of the layer between; four times the width where it is not said.
    between: int = 0


def texts(count: int) -> list[str]:
    """Texts of made words, some far more frequent than others; half of them have more than 150 words."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(random.choice(letters, random.integers(2, 9))) for _ in range(_WORDS)])
    lengths = np.minimum(random.lognormal(5.0, 1.0, count).astype(int) + 1, 2000)
    drawn = words[np.minimum(random.zipf(1.2, int(lengths.sum())), _WORDS) - 1]
    ends = np.cumsum(lengths)
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def encoder(folder: Path, shape: Shape, given: Sequence[str], max_tokens: int) -> None:
    """Leave a BERT of a shape in the sentence-transformers layout; means of the tokens, of length 1."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_word_pieces(given[:2000]), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=max_tokens,
    )  # fmt: skip
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.between or 4 * shape.width,
            max_position_embeddings=max_tokens,
        )
    )
    bare = folder.with_name(f"{folder.name}-bare")
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules = [Transformer(str(bare), max_seq_length=max_tokens), Pooling(shape.width), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))


def _word_pieces(given: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=30_522, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(given, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def llama(shape: Shape, vocabulary: int) -> Any:
    """The configuration of a Llama of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.between or 4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def chat_model(folder: Path, shape: Shape, vocabulary: int, device: str) -> int:
    """Leave a Llama of a shape in bfloat16, with tokenizer and chat template; how many parameters it has."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(llama(shape, vocabulary))
    model = bare.to(torch.bfloat16).to_empty(device=device)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.02)
    model.to("cpu").save_pretrained(folder)
    _byte_tokenizer(folder)
    return int(sum(tensor.numel() for tensor in model.parameters()))


def _byte_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[0],
        "eos_token": special[1],
        "pad_token": special[2],
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
