"""A base model and a sentence encoder small enough to train in a test, made on the spot with seeded weights."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "<|sys|>be brief<|end|>{% for message in messages %}<|user|>{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)
QUERIES = {
    "billing": ["refund my invoice", "charge twice", "pay the bill", "invoice is wrong", "money back"],
    "shipping": ["where is my parcel", "parcel is late", "track the box", "box never came", "delivery when"],
}


def write_base(directory: Path) -> Path:
    """A two-layer Llama over bytes, with a chat template."""
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|sys|>", "<|user|>", "<|bot|>"]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    torch.manual_seed(1)
    LlamaForCausalLM(_llama(len(fast))).save_pretrained(directory)
    return directory


def write_encoder(directory: Path) -> Path:
    """A one-layer BERT over characters."""
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(chr(code) for code in range(33, 127))]
    tokenizer = Tokenizer(
        models.WordLevel({letter: number for number, letter in enumerate(letters)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(letters),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(directory)
    return directory


def write_rows(path: Path, *, repeat: int = 1) -> Path:
    """Two labels' queries, four of five for training and the rest for tuning."""
    rows = [
        {"query": f"{query} {turn}", "answer": label, "split": "tuning" if number == 4 else "train"}
        for turn in range(repeat)
        for label, queries in QUERIES.items()
        for number, query in enumerate(queries)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def _llama(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=256,
        pad_token_id=256,
    )
