"""The oracle's way as demonstrations: subgoals per stage, KEEP inside, and prompts as in a rollout."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_rl.demonstrations import demonstration_rows
from lit_rl.environments.base import Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_demonstrations import WorldDemonstrations
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel
from lit_rl.verification.plan_execute import parse_plan_execute
from lit_rl.worlds.base import Observation, Step, World
from lit_rl.worlds.household import Household

CONFIG = Path(__file__).parents[2] / "configs/warmup/household.yaml"
TINY: dict[str, Any] = {"places": 4, "things": 4, "max_turns": 15, "wording": "short", "openable": False}
SHORT = WorldPrompts(style="short", history_length=1)


def test_replaying_the_replies_solves_each_task_in_the_same_prompts() -> None:
    tasks = Household(size=6, **TINY)
    shown = WorldDemonstrations(tasks, prompts=SHORT)
    turns = iter(shown[i] for i in range(len(shown)))
    for index in range(6):
        episode = PlanExecuteEpisode(tasks[index], prompts=SHORT)
        outcome, subgoals, cuts = episode.begin(), [], []
        while outcome.ask is not None:
            turn = next(turns)
            assert turn.messages[:-1] == outcome.ask.messages
            outcome = episode.act(Reply(text=turn.messages[-1].content))
            info = outcome.info
            assert info["valid"] and info["admissible"] and not info["keep_mismatch"]
            assert info["boundary"] == info["switch"] == (not subgoals or info["subgoal"] != subgoals[-1])
            cuts.append(info["boundary"])
            subgoals.append(info["subgoal"])
        assert outcome.stop_reason == "solved" and cuts[0] and not all(cuts)
        assert subgoals[0].startswith("find ") and len(set(subgoals)) >= 3
    assert next(turns, None) is None


def test_stages_of_one_task() -> None:
    """pick, look and clean of the default household, by the verbs of their subgoals."""
    wanted = [["find", "take", "put"], ["find", "take", "look"], ["find", "take", "clean", "put"]]
    for task, verbs in enumerate(wanted):
        shown = WorldDemonstrations(Household(size=6), first_task=task, num_tasks=1)
        replies = [parse_plan_execute(shown[i].messages[-1].content) for i in range(len(shown))]
        assert [reply.subgoal.split()[0] for reply in replies if reply.switch] == verbs


def test_without_a_plan() -> None:
    shown = WorldDemonstrations(Household(size=2, **TINY), prompts=SHORT, plan=False)
    prompt, reply = (message.content for message in shown[0].messages)
    assert reply.startswith("<action>go ") and "subgoal" not in prompt


def test_the_configs_model_spells_all_of_it_in_rows_that_fit() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    arguments = config["data"]["init_args"]["demonstrations"]["init_args"]
    household = arguments["worlds"]["init_args"]
    shown = WorldDemonstrations(
        Household(**household | {"size": 300}), prompts=WorldPrompts(**arguments["prompts"]), num_tasks=300
    )
    tiny = config["model"]["init_args"]["policy"]["tiny"]
    policy = Policy(PolicyConfig(tiny=TinyModel(**tiny | {"hidden_size": 8, "layers": 1, "heads": 1})))
    rows = demonstration_rows([shown[i] for i in range(len(shown))], policy, party="agent", policy_version=0)
    prompts = rows.attention_mask.sum(1) - rows.target_mask.sum(1)
    assert int(prompts.max()) <= 64
    replies = [row[mask] for row, mask in zip(rows.input_ids, rows.target_mask, strict=True)]
    texts = [policy.chat.text("agent", reply.tolist()) for reply in replies]
    for i, text in enumerate(texts):
        said = parse_plan_execute(shown[i].messages[-1].content)
        read = parse_plan_execute(text)
        assert (read.switch, read.subgoal, read.action, read.valid) == (said.switch, said.subgoal, said.action, True)


class Plain:
    """A world without an oracle."""

    task = ""

    def reset(self) -> Observation:
        return Observation("here")

    def step(self, action: str) -> Step:
        return Step(Observation("here"), terminated=True)

    def close(self) -> None: ...


class Plains:
    name = "Plains"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> World:
        return Plain()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="Plains has no oracle"):
        len(WorldDemonstrations(Plains()))
    tasks = Household(size=3, **TINY)
    for first, count in ((0, 4), (3, None), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"first_task {first} and num_tasks {count}"):
            WorldDemonstrations(tasks, first_task=first, num_tasks=count)
    with pytest.raises(IndexError):
        WorldDemonstrations(tasks, num_tasks=1)[99]
