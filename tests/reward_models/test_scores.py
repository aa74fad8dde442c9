import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.reward_models import Scoring, predictions, reward_model_loss
from lit_rl.reward_models.scores import IGNORED, axis_loss_sums

LOGITS = torch.tensor(
    [[[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [[-1.0, 1.0], [3.0, -1.0], [0.0, 2.0]]], dtype=torch.float64
)
LABELS = torch.tensor([[0, 1, 1], [1, 1, 0]])


def close(found: Tensor, wanted: object, atol: float = 1e-9) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


def test_golden_loss() -> None:
    """intelli.md 10.8."""
    sums, counts = axis_loss_sums(LOGITS, LABELS)
    close(sums / counts, [0.1269280110, 2.1657058077, 1.4100375958], atol=1e-6)  # logits are made float32
    close(reward_model_loss(LOGITS, LABELS), 3.7026714146, atol=1e-6)
    close(reward_model_loss(torch.zeros(5, 3, 2), torch.ones(5, 3, dtype=torch.int64)), 2.0794415417, atol=1e-6)


def test_golden_scores() -> None:
    """intelli.md 10.8; the tie of the first row's last axis is class 0."""
    assert predictions(LOGITS).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert Scoring().total(LOGITS).tolist() == [1.0, 2.0]
    assert Scoring().of_axes(LOGITS).tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    soft = Scoring(mode="soft_mean")
    close(soft.of_axes(LOGITS), [[0.1192029220, 0.7310585786, 0.5], [0.8807970780, 0.0179862100, 0.8807970780]])
    close(soft.total(LOGITS), [0.4500871669, 0.5931934553])
    close(Scoring(mode="soft_sum").total(LOGITS), [1.3502615007, 1.7795803659])
    close(Scoring(mode="soft_mean", weights=[0.5, 0.25, 0.25]).total(LOGITS), [0.3673661057, 0.6650943610])


def test_missing_labels_take_no_part() -> None:
    labels = torch.tensor([[0, 1, IGNORED], [IGNORED, 1, IGNORED]])
    logits = LOGITS.clone().requires_grad_(True)
    loss = reward_model_loss(logits, labels)
    close(loss.detach(), 0.1269280110 + 2.1657058077, atol=1e-6)  # both rows have the middle label
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 2].any() and not logits.grad[1, 0].any() and logits.grad[0, 0].any()


@settings(deadline=None, max_examples=20)
@given(picks=st.lists(st.integers(0, 1), min_size=3, max_size=3), size=st.floats(30, 80))
def test_modes_agree_on_confident_logits(picks: list[int], size: float) -> None:
    logits = torch.tensor([[[-size, size] if pick else [size, -size] for pick in picks]])
    hard = Scoring().total(logits)
    assert hard.tolist() == [float(sum(picks))]
    torch.testing.assert_close(Scoring(mode="soft_sum").total(logits), hard)
    torch.testing.assert_close(3 * Scoring(mode="soft_mean").total(logits), hard)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="scoring.mode is 'sum'; use one of"):
        Scoring(mode="sum")
    with pytest.raises(ValueError, match="scoring.weights go with mode 'soft_mean'; leave them out for 'hard_sum'"):
        Scoring(weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="scoring.weights has 2 numbers"):
        Scoring(mode="soft_mean", weights=[0.5, 0.5]).total(LOGITS)
