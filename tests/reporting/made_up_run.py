"""A run folder as training leaves it, made up in a second: a student of NumberSearch that learns to bisect."""

import json
import math
import random
from pathlib import Path
from typing import Any

import torch

from lit_rl.environments import NumberSearch
from lit_rl.episodes import Episode, Heard, Rollouts, Turn
from lit_rl.objectives import group_advantages, token_advantages, trajectory_returns
from lit_rl.reporting.episode_log import MAGIC, batch_record
from lit_rl.reporting.run_files import json_line

SIZE, TURNS = 15, 4
WORDS = [
    "<pad>", "<user>", "<assistant>", "<end>", "ans", "find", "n", "in", "higher", "lower", *map(str, range(SIZE))
]  # fmt: skip
ID = {word: number for number, word in enumerate(WORDS)}
CONFIG = """\
seed_everything: 0
trainer: {accelerator: cpu, precision: 32-true, max_epochs: 1}
model:
  class_path: lit_rl.methods.SocialMetaLearning
  init_args:
    policy:
      tiny: {words: [ans, find, n, in, higher, lower], numbers: 15, hidden_size: 64, layers: 2, heads: 4}
    gamma: 0.7
    return_mode: trajectory
    learning_rate: 0.001
data:
  class_path: lit_rl.datamodules.DidacticDataModule
  init_args:
    tasks: {class_path: lit_rl.environments.NumberSearch, init_args: {size: 15}}
    teacher: {class_path: lit_rl.environments.HigherLower}
    tasks_per_batch: 15
    group_size: 16
    batches_per_epoch: BATCHES
    dialogue: {max_turns: 4}
    teacher_api_key: sk-very-secret
"""


class WordLevel:
    """Decodes as the tokenizer of tiny models does."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        words = [WORDS[i] for i in ids]
        return " ".join(word for word in words if not (skip_special_tokens and word.startswith("<")))


def make_run(folder: Path, *, batches: int = 300, episodes: int = 64, seed: int = 0, every: int = 50) -> Path:
    """Write all files of a run of ``batches`` batches that was validated before, in between and after."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    clock = 1.7e9
    metrics, timings, log = [], [], [MAGIC]
    for number in range(batches):
        skill = skill_at(number / batches)
        batch = play(number, skill, episodes, chance)
        log.append(batch_record(batch, batch_number=number, step=number, sample_size=4, tokenizer=WordLevel()))
        head = {"step": number + 1, "batch": number + 1, "stage": "train"}
        metrics.append(json_line({**head, **train_figures(batch, skill, chance)}))
        clock += (sampling := chance.uniform(0.4, 0.5)) + (learning := chance.uniform(0.2, 0.3)) + 0.02
        timings.append(json_line({**head, **speeds(batch, sampling, learning), "time/clock": clock}))
        if (number + 1) % every == 0:
            held_out = play(number, skill, 32, chance, label="teacher")
            record = batch_record(held_out, batch_number=number + 1, step=number + 1, sample_size=4,
                                  tokenizer=WordLevel(), label="teacher")  # fmt: skip
            log.append(record)
            head["stage"] = "val"
            values = {f"val/teacher/accuracy_turn_{k + 1}": a for k, a in enumerate(accuracy(held_out))}
            metrics.append(json_line({**head, **values}))
            timings.append(json_line({**head, "time/clock": (clock := clock + 1.5)}))
    (folder / "metrics.jsonl").write_bytes(b"".join(metrics))
    (folder / "timings.jsonl").write_bytes(b"".join(timings))
    (folder / "episodes.bin").write_bytes(b"".join(log))
    (folder / "config.yaml").write_text(CONFIG.replace("BATCHES", str(batches)))
    write_validation(folder / "validation_before.json", skill_at(0), 0, chance)
    write_validation(folder / "validation.json", skill_at(1), batches, chance)
    return folder


def skill_at(progress: float) -> float:
    """How often the student bisects instead of guessing, by the share of training done."""
    return 0.985 / (1 + math.exp(-12 * (progress - 0.4)))


def play(number: int, skill: float, episodes: int, chance: random.Random, *, label: str = "train") -> Rollouts:
    """A batch of dialogues; on training batches with the advantages of social meta-learning."""
    finished = []
    for place in range(episodes):
        group = number * episodes + place // 4
        task = stable_choice(group)
        finished.append(dialogue(number * episodes + place, group, task, skill, chance))
    batch = Rollouts.from_episodes(
        finished, trained=["student"], parties=["student", "teacher"], policy_version=number, label=label,
        min_exchanges=TURNS,
    )  # fmt: skip
    if label == "train":
        returns = trajectory_returns(batch.rewards, gamma=0.7)
        advantages = group_advantages(returns, batch.group_ids, ddof=0, epsilon=1e-6)
        batch.advantages = token_advantages(advantages, batch.turn_ids, batch.loss_mask)
    return batch


def stable_choice(group: int) -> int:
    return random.Random(group).randrange(SIZE)


def dialogue(
    index: int, group: int, gold: int, skill: float, chance: random.Random, *, feedback: str = "teacher"
) -> Episode:
    low, high = 0, SIZE - 1
    episode = Episode(index=index, task_id=str(gold), group=group, seed=0)
    heard: str | None = None
    for exchange in range(TURNS):
        spoken, log_probs = say(skill, low, high, chance)
        guess = int(spoken[1]) if spoken[0] == "ans" and spoken[1].isdigit() else None
        prompt = ["<user>", *(heard or f"find n in 0 {SIZE - 1}").split(), "<end>", "<assistant>"]
        spans = (Heard("teacher", exchange - 1, 1, 3),) if heard else ()
        info = {"kind": "malformed" if guess is None else "answer", "answer": None if guess is None else str(guess)}
        turn = Turn(
            party="student", exchange=exchange, text=" ".join(spoken[:-1]), prompt_ids=[ID[w] for w in prompt],
            completion_ids=[ID[w] for w in spoken], log_probs=log_probs, heard=spans, stop_reason="end",
            reward=float(guess == gold), info=info | {"correct": guess == gold},
        )  # fmt: skip
        episode.turns.append(turn)
        if guess == gold:
            episode.stop_reason, episode.terminated = "solved", True
            return episode
        heard = "higher" if guess is None or gold > guess else "lower"
        if feedback == "shuffled":
            heard = chance.choice(["higher", "lower"])
        if exchange + 1 < TURNS:
            episode.turns.append(Turn(party="teacher", exchange=exchange, text=heard))
        if guess is not None and heard == "higher":
            low = min(max(low, guess + 1), high)
        elif guess is not None:
            high = max(min(high, guess - 1), low)
    episode.stop_reason, episode.truncated = "max_turns", True
    return episode


def say(skill: float, low: int, high: int, chance: random.Random) -> tuple[list[str], list[float]]:
    """ "ans", a number and the end of the turn, each with its log-prob."""
    form = 0.6 + 0.39 * skill
    if chance.random() > form:
        return ["n", str(chance.randrange(SIZE)), "<end>"], [math.log((1 - form) / 3), -2.7, -1.1]
    middle = (low + high) // 2
    guess = middle if chance.random() < skill else chance.randrange(SIZE)
    likely = (1 - skill) / SIZE + (skill if guess == middle else 0.0)
    return ["ans", str(guess), "<end>"], [math.log(form), math.log(likely), math.log(0.55 + 0.44 * skill)]


def accuracy(batch: Rollouts) -> list[float]:
    solved = [next((t.exchange for t in e.turns if t.info.get("correct")), TURNS) for e in batch.episodes]
    return [sum(turn <= k for turn in solved) / len(solved) for k in range(TURNS)]


def train_figures(batch: Rollouts, skill: float, chance: random.Random) -> dict[str, float]:
    noise = lambda scale: chance.gauss(0, scale)  # noqa: E731
    values = {f"train/accuracy_turn_{k + 1}": a for k, a in enumerate(accuracy(batch))}
    return values | {
        "train/reward": float(batch.rewards.sum(1).mean()),
        "train/loss": -0.02 * skill * (1 - skill) + noise(0.004),
        "train/entropy": 1.6 * (1 - skill) + 0.03 + abs(noise(0.03)),
        "train/approx_kl": 0.004 * skill * (1 - skill) + abs(noise(3e-4)),
        "train/clip_fraction": 0.0,
        "train/completion_tokens": float(batch.loss_mask.sum() / batch.turn_valid.sum()),
        "train/turns": float(batch.turn_valid.sum() / len(batch)),
        "train/grad_norm": 0.2 + skill * (1 - skill) * 3 + abs(noise(0.15)),
        "train/sampler_log_prob_difference": 1e-6 + abs(noise(4e-7)),
        "train/learning_rate": 1e-3,
        "train/dropped_episodes": 0.0,
    }


def speeds(batch: Rollouts, sampling: float, learning: float) -> dict[str, float]:
    tokens = float(batch.loss_mask.sum()) * 15
    return {
        "time/sampling_seconds": sampling,
        "time/learning_seconds": learning,
        "time/sampling_tokens_per_second": tokens / sampling,
        "time/learning_tokens_per_second": 3.2 * tokens / learning,
    }


def write_validation(path: Path, skill: float, version: int, chance: random.Random) -> None:
    conditions: dict[str, Any] = {}
    for name in ("teacher", "retry", "shuffled", "resample", "teacher_greedy"):
        base = name.removesuffix("_greedy")
        able = min(skill * 1.01, 1.0) if name.endswith("_greedy") else skill
        able = able if base in ("teacher", "shuffled") else 0.0
        played = [
            dialogue(i, i // 32, i // 32, able, chance, feedback=base) for i in range(SIZE * 32)
        ]  # fmt: skip
        solved = [next((t.exchange for t in e.turns if t.info.get("correct")), TURNS) for e in played]
        result = [sum(turn <= k for turn in solved) / len(solved) for k in range(TURNS)]
        conditions[name] = {"accuracy": result, "dialogues": len(played)}
    ceiling = NumberSearch(SIZE).ceiling(TURNS)
    path.write_text(json.dumps({"conditions": conditions, "ceiling": ceiling, "policy_version": version}))


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_run(options.folder, batches=options.batches)
