"""Packing must be a matter of speed alone."""

from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.lora.data import (
    Encoded,
    Row,
    UnableToReadData,
    count_packed,
    encode_rows,
    group_packs,
    measure_shared_start,
    order_steps,
    pack_examples,
    read_rows,
    render_prompt,
)

EXAMPLES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=6,
).map(lambda pairs: [Encoded((*prompt, *answer), len(answer)) for prompt, answer in pairs])
CPU = torch.device("cpu")


@given(EXAMPLES)
def test_every_answer_token_is_asked_for_by_the_token_before_it(group: list[Encoded]) -> None:
    pack = pack_examples(group, device=CPU)
    assert pack.answers.tolist() == [token for each in group for token in each.ids[-each.answer_length :]]
    firsts = [each.ids[-each.answer_length - 1 : -1] for each in group]
    assert pack.input_ids[0, pack.asking].tolist() == [token for each in firsts for token in each]


@given(EXAMPLES)
def test_a_token_sees_exactly_its_own_example_up_to_itself(group: list[Encoded]) -> None:
    pack = pack_examples(group, device=CPU)
    shared = measure_shared_start(group)
    at = shared
    for each in group:
        for position in range(shared, len(each.ids)):
            seen = pack.mask[0, 0, at].nonzero().flatten()
            assert pack.input_ids[0, seen].tolist() == list(each.ids[: position + 1])
            assert pack.position_ids[0, seen].tolist() == list(range(position + 1))
            at += 1
    assert at == count_packed(group)


@given(EXAMPLES, st.integers(0, 40))
def test_no_pack_is_larger_than_allowed_unless_it_is_one_example(step: list[Encoded], pack_tokens: int) -> None:
    groups = list(group_packs(step, pack_tokens=pack_tokens))
    assert sorted(each.ids for group in groups for each in group) == sorted(each.ids for each in step)
    assert all(len(group) == 1 or count_packed(group) <= pack_tokens for group in groups)


def test_packed_examples_get_the_logits_they_get_alone(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [Row("where is it", "shipping", "train"), Row("refund please, now", "billing", "train")]
    kept = encode_rows(rows, render_prompt(tokenizer, marker="parcels"), tokenizer, max_tokens=99)
    group = [example for _, example in kept]
    pack = pack_examples(group, device=CPU)
    with torch.no_grad():
        packed = model(
            input_ids=pack.input_ids,
            position_ids=pack.position_ids,
            attention_mask=pack.mask,
            logits_to_keep=pack.asking,
        ).logits[0]
        alone = [model(input_ids=torch.tensor([each.ids])).logits[0, -each.answer_length - 1 : -1] for each in group]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_the_prompt_is_the_query_and_a_line_and_none_of_the_bases_own_instructions(base: Path) -> None:
    prompt = render_prompt(AutoTokenizer.from_pretrained(base), marker="Answer:")
    assert (prompt.prefix, prompt.suffix) == ("", "\nAnswer:\n")
    assert {"<|sys|>", "<|user|>", "<|bot|>", "<|end|>"} <= set(prompt.control_tokens)


def test_a_row_with_a_control_token_or_too_many_tokens_is_left_out(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [Row("x<|bot|>", "a", "train"), Row("y" * 200, "a", "train"), Row("fine", "a", "train")]
    kept = encode_rows(rows, render_prompt(tokenizer, marker="m"), tokenizer, max_tokens=100)
    assert [row.query for row, _ in kept] == ["fine"]
    assert kept[0][1].ids[-1] == tokenizer.eos_token_id


def test_the_same_seed_gives_the_same_steps_and_every_example_once_an_epoch() -> None:
    examples = [Encoded((number, 0), 1) for number in range(10)]
    steps = order_steps(examples, batch=4, epochs=2, seed=3)
    assert steps == order_steps(examples, batch=4, epochs=2, seed=3)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    assert sorted(each.ids for step in steps[:3] for each in step) == [each.ids for each in examples]


def test_a_bad_line_is_named_by_number_and_never_quoted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(msgspec.json.encode({"query": "q", "answer": "a", "split": "train"}) + b'\n{"query": "my secret"}')
    with pytest.raises(UnableToReadData, match="line 2") as caught:
        read_rows(path)
    assert "secret" not in str(caught.value)
