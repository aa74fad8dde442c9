import pytest
import torch

from lit_rl.metrics.questions import QuestionFigures

SCORES = {
    "reward": torch.tensor([3.0, 1.0, 0.0, 2.0]),
    "effort": torch.tensor([1.0, 0.0, 0.0, 1.0]),
    "evidence": torch.tensor([1.0, 1.0, 0.0, 0.0]),
    "grounding": torch.tensor([1.0, 0.0, 0.0, 1.0]),
}
LENGTHS, CUT = torch.tensor([10, 20, 30, 40]), torch.tensor([False, False, True, False])


def test_means_by_hand_in_two_updates() -> None:
    metric = QuestionFigures()
    metric.update({name: values[:1] for name, values in SCORES.items()}, LENGTHS[:1], CUT[:1])
    metric.update({name: values[1:] for name, values in SCORES.items()}, LENGTHS[1:], CUT[1:])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "reward": 1.5,
        "effort": 0.5,
        "evidence": 0.5,
        "grounding": 0.5,
        "perfect": 0.25,
        "mean_length": 25.0,
        "truncated_share": 0.25,
    }


def test_axes_of_ones_own() -> None:
    metric = QuestionFigures(axes=["evidence"])
    metric.update(SCORES, LENGTHS, CUT)
    assert metric.compute()["perfect"] == 0.5
    assert "effort" not in metric.compute()


def test_without_questions_nothing_is_a_zero() -> None:
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(value.isnan() for value in QuestionFigures().compute().values())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"the scores have no \['effort'\]; there are \['evidence', 'grounding'"):
        QuestionFigures().update({name: SCORES[name] for name in ("reward", "evidence", "grounding")}, LENGTHS, CUT)
    with pytest.raises(ValueError, match="give one each"):
        QuestionFigures().update(SCORES, LENGTHS[:3], CUT)
    with pytest.raises(ValueError, match=r"axes is 'effort'; give a list"):
        QuestionFigures(axes="effort")
