import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_rl.reward_models import ChunkTransformer, ChunkTransformerHead, HeadConfig, LinearHead, MLPHead
from lit_rl.reward_models.heads import seeded

SMALL = {"num_chunks": 4, "width": 4, "attention_heads": 2, "feedforward": 6, "dropout": 0.0, "pool_dropout": 0.0}


@pytest.mark.parametrize(
    ("config", "in_features", "wanted"),
    [
        (ChunkTransformer(), 2880, 9_820_162),
        (ChunkTransformer(classifier="linear"), 2880, 9_557_506),
        (ChunkTransformer(num_chunks=8, layers=2), 2880, 5_706_754),
        (ChunkTransformer(num_chunks=8, width=32, layers=1, attention_heads=4, feedforward=64), 64, 14_306),
        (LinearHead(), 2880, 5_762),
        (MLPHead(), 2880, 4_151_522),
    ],
)
def test_parameter_counts(config: HeadConfig, in_features: int, wanted: int) -> None:
    """intelli.md 2.2; three of the first are the 29,460,486 parameters that are trained."""
    assert sum(p.numel() for p in config.build(in_features).parameters()) == wanted
    assert wanted != 9_820_162 or 3 * wanted == 29_460_486


def filled(layers: int) -> ChunkTransformerHead:
    """The head of intelli.md 10.10: tensor number n, flattened, is ``0.5 sin(j + n)`` for j = 1, 2, ..."""
    head = ChunkTransformerHead(8, ChunkTransformer(layers=layers, **SMALL)).double().eval()
    tensors = [head.project.weight]
    for layer in head.encoder:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        attention = layer.self_attn
        tensors += [attention.in_proj_weight, attention.out_proj.weight, layer.linear1.weight, layer.linear2.weight]
    parts = (*head.residual.modules(), *head.classifier.modules())
    linear = [part.weight for part in parts if isinstance(part, nn.Linear)]
    for number, tensor in enumerate([*tensors, head.pool_query, *linear]):
        steps = torch.arange(1, tensor.numel() + 1, dtype=torch.float64)
        tensor.data = (0.5 * torch.sin(steps + number)).view_as(tensor)
    return head


def inputs() -> Tensor:
    return torch.stack([torch.linspace(-1, 1, 8, dtype=torch.float64), torch.arange(8, dtype=torch.float64).cos()])


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        (1, [[-0.2046478143, 0.1208270704], [-0.1739336740, 0.0568840501]]),
        (2, [[0.0174984987, 0.1172656826], [0.0035588117, 0.1291839568]]),
    ],
)
def test_golden_logits(layers: int, wanted: list[list[float]]) -> None:
    """intelli.md 10.10, on the path with gradients and on the one without, which PyTorch computes otherwise."""
    head = filled(layers)
    with torch.no_grad():
        without = head(inputs())
    for found in (head(inputs()), without):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)


def test_golden_parts() -> None:
    """intelli.md 10.10."""
    head = filled(1)
    pooled, weights = head.pool(head.encode(inputs()))
    hidden = head.residual_norm(pooled + head.residual(pooled))
    loss = nn.functional.cross_entropy(head(inputs()), torch.tensor([1, 0]))
    for found, wanted in (
        (weights[0, 0], [0.4128991634, 0.4175032253, 0.0867198933, 0.0828777180]),
        (pooled[0], [-0.9955246176, 0.4173435115, 1.4438002967, -0.8656191906]),
        (hidden[0], [-1.0453602150, 0.3939591079, 1.4525240219, -0.8011229147]),
        (loss[None], [0.6793971758]),
    ):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)


def test_order_within_chunks_matters() -> None:
    """intelli.md 10.10: swapping the two features of every chunk changes the logits by up to 0.135."""
    head, rows = filled(1), inputs()
    swapped = rows.reshape(2, 4, 2).flip(2).reshape(2, 8)
    assert (head(rows) - head(swapped)).abs().max().item() == pytest.approx(0.135, abs=5e-4)


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(4)), seed=st.integers(0, 9))
def test_chunks_are_a_set_unless_they_have_positions(order: list[int], seed: int) -> None:
    rows = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    permuted = rows.reshape(3, 4, 2)[:, order].reshape(3, 8)
    for positions in (False, True):
        head = seeded(ChunkTransformer(layers=2, chunk_position=positions, **SMALL), 8, seed).double().eval()
        same = torch.allclose(head(rows), head(permuted), atol=1e-10, rtol=0)
        assert same is (not positions or order == [0, 1, 2, 3])


def test_layers_start_different_and_the_seed_decides() -> None:
    head = seeded(ChunkTransformer(layers=3, **SMALL), 8, 1)
    weights = [layer.self_attn.in_proj_weight for layer in head.encoder]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(weights, 2))
    state = torch.get_rng_state()
    again, other = (seeded(ChunkTransformer(layers=3, **SMALL), 8, seed) for seed in (1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    assert not torch.equal(head.pool_query, other.pool_query)


def test_initial_weights() -> None:
    """Xavier-uniform: no weight beyond sqrt(6 / (in + out)), and the largest close to it; biases 0, norms 1 and 0."""
    head = ChunkTransformer(num_chunks=8, width=64, layers=1, attention_heads=4, feedforward=128).build(256)
    for name, parameter in head.named_parameters():
        if name == "pool_query":
            assert 0.7 < float(parameter.std()) < 1.3
        elif parameter.ndim == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.95 * bound < float(parameter.abs().max()) <= bound, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm" in name and "weight" in name))), name


def test_the_hidden_layer_by_hand() -> None:
    mlp = MLPHead().build(16).eval()
    assert isinstance(mlp, nn.Sequential)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in mlp if isinstance(layer, nn.Linear))
    rows = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp(rows), (rows @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_dropout_acts_in_training_alone() -> None:
    rows = torch.randn(4, 16)
    wide = {"num_chunks": 4, "width": 8, "layers": 1, "attention_heads": 2, "feedforward": 16}
    for option, other in (("dropout", "pool_dropout"), ("pool_dropout", "dropout")):
        head = ChunkTransformer(**wide, **{option: 0.5, other: 0.0}).build(16)
        assert not torch.equal(head(rows), head(rows)), option
        head.eval()
        assert torch.equal(head(rows), head(rows))
    mlp = MLPHead(dropout=0.5).build(16)
    assert not torch.equal(mlp(rows), mlp(rows)) and torch.equal(mlp.eval()(rows), mlp(rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_chunks": 0}, "head.num_chunks is 0; it must be at least 1"),
        ({"width": 510}, "head.width is 510; it must be a multiple of 8 heads"),
        ({"dropout": 1.0}, "head.dropout is 1.0; it must be at least 0 and below 1"),
        ({"pool_dropout": -0.1}, "head.pool_dropout is -0.1"),
        ({"classifier": "deep"}, "head.classifier is 'deep'; use one of ['mlp', 'linear']"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        ChunkTransformer(**options)


def test_features_must_be_divisible() -> None:
    with pytest.raises(ValueError, match="head.num_chunks is 16, which does not divide the 100 features"):
        ChunkTransformer().build(100)
    with pytest.raises(ValueError, match="at least 2 input features; the backbone has 1"):
        MLPHead().build(1)
    with pytest.raises(ValueError, match="head.dropout is 1"):
        MLPHead(dropout=1)
