"""Labels of skills: writing and reading chains, and their tokens."""

from collections.abc import Callable

import pytest

from lit_rl.policy import Policy
from lit_rl.service import SkillLabels

WORDS = SkillLabels({"greet": "<greet>", "close": "<close>"})


def test_chains_are_written_and_read() -> None:
    assert WORDS.read_chain(WORDS.write(["close", "greet", "close"]), 3) == ("close", "greet", "close")
    assert WORDS.read_chain("<close><greet> <close>", 2) == ("close", "greet")
    assert WORDS.read_chain("<close> then <greet>", 3) == ("close",)
    assert WORDS.read_chain("then <greet>", 3) == () == WORDS.read_chain("", 3)
    assert WORDS.read_first(" <greet> hello you") == ("greet", "hello you")
    assert WORDS.read_first("hello") == (None, "hello")


def test_letters() -> None:
    letters = SkillLabels.letters(["greet", "close"])
    assert letters["close"] == "B" and letters.read_chain("BA", 3) == ("close", "greet")
    with pytest.raises(ValueError, match="27 skills and 26 letters"):
        SkillLabels.letters([str(i) for i in range(27)])


def test_tokens(make_policy: Callable[..., Policy], labels: SkillLabels) -> None:
    tokenizer = make_policy().tokenizer
    ids = labels.token_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(ids.values())) == [labels[skill] for skill in ids]
    for label in ("<unheard>", "hello and"):  # unknown pieces; two tokens
        with pytest.raises(ValueError, match=f"The label '{label}' of 'greet' is .*must be one token"):
            SkillLabels({"greet": label}).token_ids(tokenizer)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="a label without spaces"):
        SkillLabels({"greet": " "})
    with pytest.raises(ValueError, match="the label 'A' of 'greet' begins 'AB' of 'close'"):
        SkillLabels({"greet": "A", "close": "AB"})
    with pytest.raises(ValueError, match="begins 'A' of"):
        SkillLabels({"greet": "A", "close": "A"})
    with pytest.raises(ValueError, match="the procedure's skills are"):
        WORDS.check_skills(["greet"])
