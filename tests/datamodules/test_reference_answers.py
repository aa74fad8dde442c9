from collections import Counter

import pytest

from lit_rl.datamodules.reference_answers import ReferenceAnswers
from lit_rl.environments.answer_sets import AutoregressiveToy


def test_answers_are_drawn_as_the_reference_gives_them() -> None:
    toy = AutoregressiveToy(prompts=["pick two", "choose two"])
    source = ReferenceAnswers(toy, size=4000, seed=1)
    shown = [source[index].messages for index in range(len(source))]
    assert Counter(prompt.content for prompt, _ in shown) == {"pick two": 2000, "choose two": 2000}
    counts = Counter(answer.content for _, answer in shown)
    for answer, probability in zip(toy.answers, toy.reference, strict=True):
        assert counts[answer] / 4000 == pytest.approx(probability, abs=0.02)
    assert shown == [ReferenceAnswers(toy, size=4000, seed=1)[index].messages for index in range(4000)]
    assert shown != [ReferenceAnswers(toy, size=4000, seed=2)[index].messages for index in range(4000)]
    with pytest.raises(ValueError, match="ReferenceAnswers.size is 0"):
        ReferenceAnswers(toy, size=0)
