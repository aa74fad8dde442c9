"""Credit for turns, from batches of any kind, also for a module that knows nothing of lit-rl."""

import math
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lit_rl.callbacks.flat_credit import FlatCredit
from lit_rl.callbacks.group_credit import GroupCredit
from lit_rl.callbacks.hierarchical_credit import HierarchicalCredit
from lit_rl.callbacks.turn_credit import NonFiniteAdvantage, TurnCredit, rank_sum
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.objectives import aggregate, clipped_policy_loss, group_advantages, turn_advantages
from lit_rl.objectives.gae import gae
from lit_rl.objectives.plan_penalties import PlanPenalties
from lit_rl.objectives.step_groups import group_in_group_advantages

NAN = math.nan
ORDER = torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])  # rows may come in any order


def two_episodes() -> dict[str, Tensor]:
    """hiper.md 10 G, a row a turn: the golden episode (number 40) and one of three turns (number 7).

    Six tokens a row: one of the prompt, the switch, two of the subgoal, the action, one that is never sampled.
    """
    tokens = torch.zeros(9, 6, dtype=torch.bool)
    masks = {name: tokens.clone() for name in ("loss_mask", "switch_mask", "subgoal_mask", "action_mask")}
    masks["loss_mask"][:, 1:5] = True
    masks["switch_mask"][:, 1] = masks["subgoal_mask"][:, 2:4] = masks["action_mask"][:, 4] = True
    return {
        "episode_ids": torch.tensor([40] * 6 + [7] * 3),
        "turn_ids": torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2]),
        "rewards": torch.tensor([0, 0, 0, -0.1, 0, 1, 0, 0, -0.2]),
        "boundary": torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0, 0]),
        "value_low": torch.tensor([0.2, 0.3, 0.4, 0.35, 0.5, 0.6, 0.1, 0.2, 0.3]),
        "value_high": torch.tensor([0.25, NAN, 0.45, NAN, NAN, 0.7, 0.15, NAN, NAN]),
        "value_switch": torch.tensor([0.22, 0.28, 0.42, 0.33, 0.48, 0.66, 0.12, 0.18, 0.25]),
        "terminated": torch.ones(9, dtype=torch.bool),
        "group_ids": torch.zeros(9, dtype=torch.int64),
        **masks,
    }


def shuffled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[ORDER] for name, tensor in batch.items()}


def annotated(callback: TurnCredit, batch: Any) -> Any:
    callback.annotate(batch)
    return batch


def hierarchical(batch: Any = None, **options: Any) -> Any:
    settings = {"gamma": 0.95, "lambda_turn": 0.95, "lambda_segment": 0.95, "whiten": False} | options
    return annotated(HierarchicalCredit(**settings), two_episodes() if batch is None else batch)


def close(found: Tensor, expected: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), atol=atol, rtol=0)


LOW = [0.20006875, 0.1275, 0.08945603, 0.1739125, 0.165, 0.4, -0.24054063, -0.36625, -0.5]
HIGH = [0.41292114, 0, 0.29951437, 0, 0, 0.3, -0.3305, 0, 0]
SWITCH = [0.186125, 0.1475, 0.0851625, 0.20175, 0.185, 0.34, -0.3005, -0.37, -0.45]


# -- what is written ---------------------------------------------------------------------------------------------------


def test_golden_b_and_g_in_any_order_of_rows() -> None:
    batch = hierarchical()
    close(batch["advantage_low"], LOW)
    close(batch["advantage_high"], HIGH)
    close(batch["advantage_switch"], SWITCH)
    close(batch["return_low"][:6], [0.40006875, 0.4275, 0.48945603, 0.5239125, 0.665, 1.0])
    close(batch["return_high"][:6], [0.66292114, 0, 0.74951437, 0, 0, 1.0])
    close(batch["return_switch"][:6], [0.406125, 0.4275, 0.5051625, 0.53175, 0.665, 1.0])
    other = hierarchical(shuffled(two_episodes()))
    for name in ("advantages", "loss_mask", "advantage_low", "advantage_high", "advantage_switch", "return_low"):
        assert torch.equal(other[name], batch[name][ORDER])


def test_property_11_tokens_get_the_advantage_of_their_block() -> None:
    batch, before = hierarchical(), two_episodes()
    kept = before["boundary"] == 0
    close(batch["advantages"][:, 1], SWITCH)
    close(batch["advantages"][:, 2], HIGH)
    close(batch["advantages"][:, 3], HIGH)
    close(batch["advantages"][:, 4], LOW)
    assert not batch["advantages"][~batch["loss_mask"]].any()
    assert not batch["loss_mask"][kept][:, 2:4].any() and batch["loss_mask"][~kept][:, 1:5].all()
    assert batch["loss_mask"][kept].sum() == 2 * kept.sum()
    assert torch.equal(batch["rewards"], before["rewards"])


def characters(text: str, length: int) -> dict[str, Tensor]:
    """One token a character; the blocks with their tags."""
    masks = {"loss_mask": torch.zeros(length, dtype=torch.bool)}
    masks["loss_mask"][: len(text) + 1] = True  # and the end of sequence
    for name in ("switch", "subgoal", "action"):
        masks[f"{name}_mask"] = torch.zeros(length, dtype=torch.bool)
        masks[f"{name}_mask"][text.index(f"<{name}>") : text.index(f"</{name}>") + len(f"</{name}>")] = True
    return masks


def test_golden_h_policy_loss_of_a_switch_and_of_a_keep() -> None:
    rows = [
        characters(f"<switch>{word}</switch>\n<subgoal>go</subgoal>\n<action>up</action>", 66)
        for word in ("SWITCH", "KEEP")
    ]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    # Alone in its episode the first turn has A_low = r - 1.1, A_high = r - 0.5, A_switch = r - 0.8; so has the second
    # turn of the other episode, whose first turn is left out of the loss.
    first = {name: mask[:1] & (name == "action_mask") & False for name, mask in batch.items()}
    batch = {name: torch.cat([mask, first[name]]) for name, mask in batch.items()}
    batch |= {
        "episode_ids": torch.tensor([0, 1, 1]), "turn_ids": torch.tensor([0, 1, 0]),
        "rewards": torch.tensor([1.0, 1.0, 0.0]), "boundary": torch.tensor([True, False, True]),
        "value_low": torch.tensor([1.1, 1.1, 0.0]), "value_high": torch.tensor([0.5, NAN, 0.0]),
        "value_switch": torch.tensor([0.8, 0.8, 0.0]),
    }  # fmt: skip
    annotated(HierarchicalCredit(whiten=False), batch)

    def loss(row: int) -> Tensor:
        same, advantages, mask = (
            torch.zeros(1, 66), batch["advantages"][row : row + 1], batch["loss_mask"][row : row + 1]
        )  # fmt: skip
        return aggregate(clipped_policy_loss(same, same, advantages, mask, dual_clip=3.0), mask, mode="token_mean")

    assert batch["loss_mask"].sum(1).tolist() == [63, 40, 0]
    assert float(loss(0)) == pytest.approx(-0.20952381, abs=1e-7)  # -(23 * 0.2 + 21 * 0.5 - 19 * 0.1) / 63
    assert float(loss(1)) == pytest.approx(-0.0575, abs=1e-7)  # -(21 * 0.2 - 19 * 0.1) / 40


def test_streams_are_whitened_over_turns_each_by_itself() -> None:
    batch = two_episodes()
    batch["action_mask"][4] = False  # a turn without an action is in no set of actions
    hierarchical(batch, whiten=True)
    sets = {1: torch.arange(9), 2: torch.tensor([0, 2, 5, 6]), 4: torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])}
    for token, rows in sets.items():
        white = batch["advantages"][rows, token]
        close(white.mean(), 0.0, 1e-5)
        close(white.std(correction=0), 1.0, 1e-5)
    plain = hierarchical()
    for name in ("return_low", "return_high", "return_switch", "advantage_low"):
        assert torch.equal(batch[name], plain[name])


# -- options -----------------------------------------------------------------------------------------------------------


def test_td_targets() -> None:
    batch = hierarchical(targets="td")
    close(batch["return_low"][:6], [0.285, 0.4275, 0.3325, 0.375, 0.665, 1.0])
    close(batch["return_high"][:6], [0.406125, 0, 0.5051625, 0, 0, 1.0])


def test_critic_and_gain_leave_the_first_switch_untrained() -> None:
    critic = hierarchical(switch="critic", gamma=1.0, lambda_turn=1.0)
    close(critic["advantage_switch"][:6], [0, 0.02, 0.03, 0.02, 0.02, 0.04])
    more = {
        "value_high": torch.tensor([0.25, 0.33, 0.45, 0.30, 0.52, 0.70, 0.15, 0, 0]),
        "value_keep": torch.tensor([NAN, 0.30, 0.38, 0.35, 0.50, 0.55, NAN, 0, 0]),
        "switch_prob": torch.tensor([NAN, 0.2, 0.6, 0.1, 0.3, 0.7, NAN, 0, 0]),
    }
    batch = two_episodes() | more
    del batch["value_switch"]  # two heads
    gain = hierarchical(batch, switch="gain")
    close(gain["advantage_switch"], [0, -0.006, 0.028, 0.005, -0.006, 0.045, 0, 0, 0])  # hiper.md 10 F
    assert "return_switch" not in gain
    late = hierarchical(train_first_switch=False)
    for found in (critic, gain, late):
        assert found["loss_mask"][:, 1].tolist() == [t > 0 for t in found["turn_ids"].tolist()]
    close(late["advantage_switch"][1:6], SWITCH[1:6])
    assert late["advantage_switch"][0] == 0 and hierarchical()["loss_mask"][0, 1]


def test_truncation() -> None:
    """hiper.md 10 D; the other episode really ended."""
    cut = two_episodes()
    cut["rewards"][5] = 0.0
    cut["terminated"][:6] = False
    cut["value_next"] = torch.tensor([NAN] * 5 + [0.5] + [NAN] * 3)
    for truncation, low, high in (
        ("zero", -0.6, -0.28541616),
        ("stale", -0.03, 0.17897814),
        ("next", -0.125, 0.04629406),
    ):
        batch = hierarchical(dict(cut), truncation=truncation)
        close(batch["advantage_low"][5], low)
        close(batch["advantage_high"][0], high)
        close(batch["advantage_low"][6:], LOW[6:])


def test_penalties_shape_what_is_learned_and_not_the_rewards() -> None:
    batch = two_episodes()
    batch |= {"kept": batch["boundary"] == 0, "valid": torch.ones(9), "rewritten": torch.zeros(9)}
    penalties = PlanPenalties(keep=-0.3, keep_skip_first=False)
    found = hierarchical(dict(batch), gamma=1.0, lambda_turn=1.0, penalties=penalties)
    close(found["advantage_low"][:6], [-0.05, -0.15, -0.40, -0.35, -0.10, 0.40])  # hiper.md 10 E
    close(found["advantage_high"][:6], [-0.25675, 0, -0.165, 0, 0, 0.30])
    assert torch.equal(found["rewards"], batch["rewards"])
    batch["valid"][1], batch["rewritten"][3] = 0, 1
    for callback in (HierarchicalCredit, FlatCredit, GroupCredit):
        plain = annotated(callback(), dict(batch))
        hurt = annotated(callback(penalties=PlanPenalties(invalid=0.1, rewritten=-0.2)), dict(batch))
        assert not torch.equal(plain["advantages"], hurt["advantages"])


# -- rollouts ----------------------------------------------------------------------------------------------------------


def said(party: str, exchange: int, reward: float = 0.0) -> Turn:
    return Turn(party=party, exchange=exchange, text="", prompt_ids=[1, 2], completion_ids=[5, 6, 7, 8],
                log_probs=[-1.0] * 4, new_row=True, reward=reward)  # fmt: skip


def rollouts(drop: int | None = None) -> Rollouts:
    """The two episodes as they come from the sampler, a row a turn."""
    source, episodes = two_episodes(), []
    for index in (40, 7):
        mine = source["rewards"][source["episode_ids"] == index].tolist()
        turns = [said("student", t, reward) for t, reward in enumerate(mine)]
        episodes.append(Episode(index=index, task_id="", group=0, seed=0, turns=turns, terminated=True))
    batch = Rollouts.from_episodes(episodes, trained=["student"], parties=["student"])
    for name in ("boundary", "value_low", "value_high", "value_switch"):
        batch.extras[name] = source[name]
    for name, places in (("switch", [2]), ("subgoal", [3, 4]), ("action", [5])):
        batch.extras[f"{name}_mask"] = torch.zeros(9, 6, dtype=torch.bool)
        batch.extras[f"{name}_mask"][:, places] = True
    return batch if drop is None else batch.select(torch.arange(9) != drop)


def test_rollouts_with_extras() -> None:
    batch = hierarchical(rollouts())
    close(batch.extras["advantage_low"], LOW)
    close(batch.extras["return_high"][:6], [0.66292114, 0, 0.74951437, 0, 0, 1.0])
    close(batch.advantages[:, 3], HIGH)
    assert batch.loss_mask[1].tolist() == [False, False, True, False, False, True]
    batch.validate()
    assert torch.equal(hierarchical(batch).advantages, batch.advantages)  # again, on what is narrowed
    parts = list(batch.micro_batches(20))
    assert sum(len(part) for part in parts) == 9 and all("advantage_low" in part.extras for part in parts)


def test_planner_and_responder_with_rows_of_their_own() -> None:
    """The planner has no row in turns that go on with a skill; what it earns is what the responder's rows say."""
    source, turns = two_episodes(), []
    for t in range(6):
        if source["boundary"][t]:
            turns.append(said("planner", t))
        turns.append(said("responder", t, float(source["rewards"][t])))
    batch = Rollouts.from_episodes(
        [Episode(index=3, task_id="", group=0, seed=0, turns=turns, terminated=True)],
        trained=["planner", "responder"], parties=["customer", "planner", "responder"],
    )  # fmt: skip
    planned, here = batch.party_ids[:, -1] == 1, torch.tensor([0, 2, 5])
    batch.extras["value_low"] = torch.full((9,), NAN).masked_scatter(~planned, source["value_low"][:6])
    batch.extras["value_high"] = torch.full((9,), NAN).masked_scatter(planned, source["value_high"][here])
    batch.extras["boundary"] = planned.float()
    hierarchical(batch, streams={"high": "planner", "low": "responder"})
    close(batch.extras["advantage_low"][~planned], LOW[:6])
    close(batch.extras["advantage_high"][planned], [HIGH[t] for t in here])
    close(batch.advantages[planned][:, 2], [HIGH[t] for t in here])
    close(batch.advantages[~planned][:, 5], LOW[:6])
    assert batch.loss_mask.sum() == 4 * 9 and not batch.extras["return_low"][planned].any()


# -- flat and group-relative credit ------------------------------------------------------------------------------------


def padded(values: list[float]) -> Tensor:
    """Episode 7, then episode 40, ``(2, 6)``."""
    return torch.tensor([[*values[6:], 0, 0, 0], values[:6]])


EXISTS = torch.tensor([[True] * 3 + [False] * 3, [True] * 6])
REWARDS = padded([0, 0, 0, -0.1, 0, 1, 0, 0, -0.2])


def in_rows(grid: Tensor) -> Tensor:
    return torch.cat([grid[1], grid[0, :3]])


def test_flat_credit_gives_every_sampled_token_the_turn_s_advantage() -> None:
    batch = annotated(FlatCredit(gamma=0.9, gae_lambda=0.8, whiten=False), two_episodes())
    values = padded(two_episodes()["value_switch"].tolist())
    wanted = gae(REWARDS, values, EXISTS, gamma=0.9, gae_lambda=0.8)
    close(batch["advantage_turn"], in_rows(wanted.advantages))
    close(batch["return_switch"], in_rows(wanted.returns))
    assert torch.equal(batch["loss_mask"], two_episodes()["loss_mask"])
    close(batch["advantages"], in_rows(wanted.advantages)[:, None] * batch["loss_mask"])
    white = annotated(FlatCredit(head="low"), two_episodes())
    close(white["advantages"][:, 1].mean(), 0.0)
    close(white["advantages"][:, 1].std(correction=0), 1.0)
    assert "return_low" in white and "return_switch" not in white
    cut = two_episodes() | {"terminated": torch.zeros(9, dtype=torch.bool), "value_next": torch.full((9,), 0.5)}
    more = annotated(FlatCredit(gae_lambda=1.0, truncation="next", whiten=False), dict(cut))
    less = annotated(FlatCredit(gae_lambda=1.0, whiten=False), dict(cut))
    close(more["advantage_turn"] - less["advantage_turn"], [0.5] * 9)


def test_group_credit() -> None:
    groups, states = torch.tensor([0, 0]), torch.tensor([0, 1, 2, 3, 4, 5, 0, 2, 2])
    batch = shuffled(two_episodes() | {"state": states})
    totals = torch.tensor([-0.2, 0.9])

    def found(**options: Any) -> Tensor:
        rows = annotated(GroupCredit(**options), dict(batch))
        close(rows["advantages"], rows["advantage_turn"][:, None] * rows["loss_mask"])
        back: Tensor = rows["advantage_turn"][torch.argsort(ORDER)]
        return back

    episode = group_advantages(totals, groups, ddof=1, epsilon=1e-6)[:, None].expand(2, 6)
    close(found(), in_rows(episode))
    close(found(scale_by_std=False), in_rows(torch.tensor([[-0.55], [0.55]]).expand(2, 6)))
    returns = padded([0.9, 0.9, 0.9, 0.9, 1, 1, -0.2, -0.2, -0.2])
    close(found(by="turn"), in_rows(turn_advantages(returns, EXISTS, groups, ddof=1, epsilon=1e-6)))
    close(
        found(by="turn", scale_by_std=False), in_rows(turn_advantages(returns, EXISTS, groups, normalization="center"))
    )
    by_state = group_in_group_advantages(
        REWARDS, EXISTS, groups, padded(states.tolist()).long(), gamma=0.9, step_coef=0.5
    )
    close(found(by="state", gamma=0.9, step_coef=0.5), in_rows(by_state))


# -- somebody else's project -------------------------------------------------------------------------------------------


class Foreign(L.LightningModule):
    """Somebody else's module: three words a turn (switch, subgoal, action), plain REINFORCE, values of its own."""

    def __init__(self, batches: int):
        super().__init__()
        self.logits, self.values = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3))
        self.batches = batches

    def play(self, seed: int) -> dict[str, Tensor]:
        """16 episodes of 3 turns; the action 1 is rewarded, but only where the subgoal held is 1."""
        words = torch.distributions.Categorical(logits=self.logits.detach()).sample(torch.Size([48]))
        turn, boundary = torch.arange(48) % 3, (words[:, 0] == 1) | (torch.arange(48) % 3 == 0)
        held = words[:, 1].clone()
        for row in (~boundary).nonzero().flatten().tolist():
            held[row] = held[row - 1]
        place = torch.eye(3, dtype=torch.bool).expand(48, 3, 3)
        low, high, switch = self.values.detach().expand(48, 3).unbind(1)
        return {
            "words": words, "episode_ids": torch.arange(48) // 3, "turn_ids": turn, "boundary": boundary,
            "rewards": ((words[:, 2] == 1) & (held == 1)).float(), "loss_mask": torch.ones_like(words).bool(),
            "value_low": low, "value_high": high, "value_switch": switch,
            "switch_mask": place[:, 0], "subgoal_mask": place[:, 1], "action_mask": place[:, 2],
        }  # fmt: skip

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        log_probs = self.logits.log_softmax(-1).expand(48, 3, 2).gather(2, batch["words"][..., None]).squeeze(2)
        policy = -(batch["advantages"] * log_probs * batch["loss_mask"]).sum() / batch["loss_mask"].sum()
        returns = torch.stack([batch[f"return_{name}"] for name in ("low", "high", "switch")], 1)
        counts = torch.stack([torch.ones(48), batch["boundary"].float(), torch.ones(48)], 1)
        return policy + ((self.values - returns).square() * counts).sum() / counts.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return Games(self)


class Games:
    def __init__(self, module: Foreign):
        self.module = module

    def __len__(self) -> int:
        return self.module.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.module.play(number) for number in range(len(self)))


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_a_foreign_module_learns_from_its_own_dictionaries() -> None:
    torch.manual_seed(0)
    module = Foreign(80)
    before = module.play(0)["rewards"].mean()
    trainer(callbacks=[HierarchicalCredit(lambda_segment=0.0)]).fit(module)
    chances = module.logits.detach().softmax(-1)[:, 1]
    assert float(before) < 0.4 and min(chances[1:].tolist()) > 0.9


class Noted(Foreign):
    """Two processes with other turns each; both note what they were given."""

    def __init__(self, folder: str):
        super().__init__(1)
        self.folder = folder

    def play(self, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(self.global_rank)
        return super().play(seed)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        torch.save(dict(batch), f"{self.folder}/{self.global_rank}.pt")
        return super().training_step(batch, batch_idx)


def test_two_processes_whiten_over_the_turns_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    trainer(devices=2, strategy="ddp_fork", callbacks=[HierarchicalCredit()]).fit(Noted(str(tmp_path)))
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert not torch.equal(parts[0]["words"], parts[1]["words"])
    union = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    union["episode_ids"][48:] += 16
    union["loss_mask"] = torch.ones_like(union["loss_mask"])
    given = union["advantages"]
    close(annotated(HierarchicalCredit(), union)["advantages"], given, 1e-5)


def test_loops_over_fabric_have_their_sums_too() -> None:
    loop = SimpleNamespace(strategy=L.Fabric(accelerator="cpu", devices=1).strategy)
    assert float(rank_sum(loop)(torch.tensor(3.0))) == 3.0


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_rows_that_are_the_same_turn_or_missing_are_refused() -> None:
    """hiper.md 10 J and property 16."""
    for callback in (HierarchicalCredit(), FlatCredit(), GroupCredit()):
        twice = {name: torch.cat([tensor, tensor[5:6]]) for name, tensor in two_episodes().items()}
        with pytest.raises(ValueError, match="Turn 5 of episode 40 has 2 rows; its reward would count more than once"):
            callback.annotate(twice)
        gap = {name: torch.cat([tensor[:3], tensor[4:]]) for name, tensor in two_episodes().items()}
        with pytest.raises(
            ValueError, match="Episode 40 has 5 rows and one of them is turn 5; credit needs a row of ev"
        ):
            callback.annotate(gap)
    with pytest.raises(ValueError, match="Episode 40 has 6 turns and 5 rows; credit needs a row of every turn"):
        hierarchical(rollouts(drop=5))


def test_what_is_nan_where_it_is_read_is_refused_on_all_ranks() -> None:
    batch = two_episodes()
    batch["value_high"][6] = NAN
    with pytest.raises(NonFiniteAdvantage, match=r"\{'high': \[7\]\} \(stream: episodes\)"):
        hierarchical(batch)
    callback, other_rank = HierarchicalCredit(), SimpleNamespace(reduce=lambda tensor, reduce_op: tensor + 1)
    with pytest.raises(NonFiniteAdvantage, match="on another rank"):
        callback.on_train_batch_start(SimpleNamespace(strategy=other_rank), None, two_episodes(), 0)
    assert NonFiniteAdvantage.on_all_ranks


def test_wrong_options_and_batches() -> None:
    with pytest.raises(ValueError, match=r"switch is 'value'; use one of \['return', 'critic', 'gain'\]"):
        HierarchicalCredit(switch="value")
    with pytest.raises(ValueError, match="lambda_turn is 2.0; it lies between 0 and 1"):
        HierarchicalCredit(lambda_turn=2.0)
    with pytest.raises(ValueError, match=r"streams has the levels \['high'\]; it needs 'high' and 'low'"):
        HierarchicalCredit(streams={"high": "planner"})
    with pytest.raises(ValueError, match="truncation is 'stale'; use one of"):
        FlatCredit(truncation="stale")
    with pytest.raises(ValueError, match="by is 'task'; use one of"):
        GroupCredit(by="task")
    with pytest.raises(ValueError, match="gamma is 1.5"):
        GroupCredit(gamma=1.5)
    with pytest.raises(ValueError, match="gae_lambda is -1.0"):
        FlatCredit(gae_lambda=-1.0)
    without = two_episodes()
    del without["value_low"]
    with pytest.raises(ValueError, match="needs 'value_low', and the batch, a dict, has neither such a field"):
        hierarchical(without)
    with pytest.raises(ValueError, match="no 'planner_mask', and its parties are .*; give the mask, or set streams"):
        hierarchical(streams={"high": "planner", "low": "action"})
    with pytest.raises(ValueError, match=r"value_low has shape \(9, 1\); wanted one number a row"):
        hierarchical(two_episodes() | {"value_low": torch.zeros(9, 1)})
    late = two_episodes()
    late["boundary"][0] = 0
    with pytest.raises(ValueError, match="the first turn of an episode always begins a segment"):
        hierarchical(late)


@pytest.mark.parametrize(
    "callback",
    [
        HierarchicalCredit(),
        HierarchicalCredit(truncation="stale", targets="td"),
        FlatCredit(),
        GroupCredit(),
        GroupCredit(by="turn"),
        GroupCredit(by="state"),
    ],
    ids=lambda callback: f"{type(callback).__name__}-{getattr(callback, 'by', getattr(callback, 'targets', ''))}",
)
def test_a_rank_without_rows_takes_part(callback: TurnCredit) -> None:
    """Where dynamic sampling leaves all kept groups to others: it answers what they add up, and gives no credit."""
    batch = {
        name: tensor[:0] for name, tensor in (two_episodes() | {"state": torch.zeros(9, dtype=torch.int64)}).items()
    }
    reduced: list[Tensor] = []

    def over_ranks(sums: Tensor) -> Tensor:
        reduced.append(sums)
        return 2 * sums

    callback.annotate(batch, reduce=over_ranks)
    assert reduced and all(not sums.any() for sums in reduced)
    assert batch["advantages"].shape == batch["loss_mask"].shape == (0, 6)
