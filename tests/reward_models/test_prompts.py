import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.loading import load_tokenizer
from lit_rl.reward_models import QuestionPrompts, QuestionTooLong
from lit_rl.tiny import materialize
from tests.reward_models.worlds import TINY


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(materialize(TINY)))


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def text(tokenizer: Any, ids: tuple[int, ...]) -> str:
    decoded: str = tokenizer.decode(ids)
    return decoded


def test_three_turns_and_the_question_last(tokenizer: Any) -> None:
    prompts = QuestionPrompts(tokenizer, max_length=40, rubric="judge it")
    found = text(tokenizer, prompts.ids("paper of a", "why a ?"))
    assert found == "<system> judge it <end> <user> paper of a <end> <user> why a ? <end>"


@settings(deadline=None, max_examples=25)
@given(words=st.integers(1, 60), max_length=st.integers(18, 40), asked=st.integers(1, 4))
def test_only_the_middle_of_the_paper_is_cut(tokenizer: Any, words: int, max_length: int, asked: int) -> None:
    prompts = QuestionPrompts(tokenizer, max_length=max_length, rubric="judge it")
    letters = ["abcdefgh"[i % 8] for i in range(words)]
    question = " ".join(["why"] * asked) + " ?"
    ids = prompts.ids(" ".join(letters), question)
    assert len(ids) <= max_length
    head, _, tail = text(tokenizer, ids).partition(" [...] ")
    whole = text(tokenizer, QuestionPrompts(tokenizer, max_length=999, rubric="judge it").ids("-", question))
    before, _, behind = whole.partition("<unknown>")  # "-" is no word of the vocabulary
    assert head.startswith(before) and (head + tail).endswith(behind)
    if tail:
        kept = (head.removeprefix(before).split(), tail.removesuffix(behind).split())
        assert kept[0] == letters[: len(kept[0])] and kept[1] == letters[len(letters) - len(kept[1]) :]
        assert 0 <= len(kept[0]) - len(kept[1]) <= 1
        assert len(ids) == max_length  # no more is cut than has to be
    else:
        assert head == f"{before}{' '.join(letters)}{behind}"


def test_a_question_too_long_for_any_paper(tokenizer: Any) -> None:
    prompts = QuestionPrompts(tokenizer, max_length=12, rubric="judge it")
    with pytest.raises(QuestionTooLong, match="'why why why why.* leave 0 of 12 tokens, too few for a paper"):
        prompts.ids("paper of a", "why " * 20)


def test_options_reach_the_template(tokenizer: Any) -> None:
    templated = with_template(tokenizer, "{{ effort }} " + tokenizer.chat_template)
    prompts = QuestionPrompts(templated, max_length=40, rubric="judge", template_options={"effort": "why"})
    assert text(tokenizer, prompts.ids("a", "b ?")).startswith("why <system> judge")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template; use an instruction-tuned model"),
        ("{{ raise_exception('roles must alternate') }}", "cannot render a system turn .*roles must alternate"),
        ("{{ messages[-1]['content'] }}", "drops the paper or the question of two user turns"),
    ],
)
def test_templates_that_do_not_fit(tokenizer: Any, template: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionPrompts(with_template(tokenizer, template), max_length=40)
