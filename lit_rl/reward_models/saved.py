"""A trained reward model as a folder (safetensors and config.json), and as the reward of any method."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_rl.papers.records import AXES
from lit_rl.reward_models.backbone import BackboneConfig
from lit_rl.reward_models.heads import HeadConfig
from lit_rl.reward_models.model import MultiObjectiveRewardModel, RewardModelConfig
from lit_rl.reward_models.prompts import QuestionTooLong
from lit_rl.reward_models.scores import ScoreMode, Scoring
from lit_rl.tiny import TinyModel
from lit_rl.verification.traces import ThinkTags

CONFIG, HEADS, BACKBONE = "config.json", "heads.safetensors", "backbone"
_QUOTES = "\"'`“”‘’«»„"


def save_reward_model(model: MultiObjectiveRewardModel, folder: str | Path) -> None:
    """Write the heads, what they were trained on, and the backbone if it was trained too.

    Raises:
        ValueError: The folder of the backbone lies within the folder written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: x.detach().cpu().contiguous() for name, x in model.heads.state_dict().items()}, folder / HEADS)
    config = model.config
    facts = asdict(config) | {"axes": list(AXES), "identity": model.backbone.identity}
    facts["head"] = {"class": type(config.head).__name__, **asdict(config.head)}
    if config.train_backbone:
        model.backbone.model.save_pretrained(folder / BACKBONE)
        model.backbone.tokenizer.save_pretrained(folder / BACKBONE)
        facts |= {"backbone": facts["backbone"] | {"path": BACKBONE, "tiny": None}, "identity": None}
    (folder / CONFIG).write_text(json.dumps(facts, indent=1) + "\n")


def load_reward_model(folder: str | Path, device: torch.device | str = "cpu") -> MultiObjectiveRewardModel:
    """The model that `save_reward_model` wrote, in eval mode and frozen.

    Raises:
        ValueError: There is none in the folder, or its backbone has other weights than those it was trained on.
    """
    config, identity = read_config(folder)
    model = MultiObjectiveRewardModel(config, device)
    if identity not in (None, model.backbone.identity):
        raise ValueError(
            f"The heads in {folder} were trained on another backbone than {model.backbone.path!r} is; put that one's "
            "weights back, or train the heads anew."
        )
    model.heads.load_state_dict(load_file(Path(folder) / HEADS))
    return model.requires_grad_(False).eval()


def read_config(folder: str | Path) -> tuple[RewardModelConfig, str | None]:
    """What a saved reward model is made of, and which backbone it was trained on (None: its own, in the folder).

    Raises:
        ValueError: There is none in the folder, or its head is of a class that is not imported.
    """
    path = Path(folder)
    if not all((path / name).is_file() for name in (CONFIG, HEADS)):
        raise ValueError(f"There is no reward model in {folder}: it holds no {CONFIG} with a {HEADS} beside it.")
    facts: dict[str, Any] = json.loads((path / CONFIG).read_text())
    if facts.pop("axes", None) != list(AXES):
        raise ValueError(f"{path / CONFIG} is not that of a reward model with the axes {list(AXES)}.")
    identity: str | None = facts.pop("identity")
    backbone, head = facts.pop("backbone"), facts.pop("head")
    known = {kind.__name__: kind for kind in HeadConfig.__subclasses__()}
    if (name := head.pop("class")) not in known:
        raise ValueError(f"{path / CONFIG} has a head {name!r}; known are {sorted(known)}. Import what defines it.")
    tiny = backbone.pop("tiny")
    if identity is None:
        backbone["path"] = str(path / BACKBONE)
    loaded = BackboneConfig(**backbone, tiny=None if tiny is None else TinyModel(**tiny))
    return RewardModelConfig(backbone=loaded, head=known[name](**head), **facts), identity


def question_in(completion: str, tags: ThinkTags | None = None) -> str:
    """The question in what a generator said: without its reasoning, and without spaces and quotes around it.

    Args:
        completion: All it said.
        tags: Of its reasoning; None is ``<think>`` and ``</think>``.

    Returns:
        "" if nothing is left, or the reasoning was never closed.

    Example:
        >>> question_in('<think> what to ask </think> "Why does it converge?"')
        'Why does it converge?'
        >>> question_in("<think> what to ask")
        ''
    """
    tags = tags or ThinkTags()
    said = completion.rpartition(tags.close)[2]
    return "" if tags.open in said else said.strip().strip(_QUOTES).strip()


class SavedRewardModel:
    """A trained reward model as a `lit_rl.protocols.RewardModel`, such as ``data.quality`` of `CompletionDataModule`.

    In a config::

        quality:
          class_path: lit_rl.reward_models.SavedRewardModel
          init_args: {path: runs/intelli-reward_tiny/checkpoints/last-policy}

    It is loaded when it is asked first, onto the device of this process.  Parts of the reward are the three axes.  A
    completion without a question (`question_in`) gets 0 everywhere, and so does a question so long that no paper fits
    beside it.

    Args:
        path: Folder that `save_reward_model` wrote, or that a training of `lit_rl.methods.IntelliReward` exported.
        mode: See `Scoring`.
        weights: See `Scoring`.
        paper_after: What stands in every prompt before the paper, which begins behind it; "" takes whole prompts.
        tags: Of the generator's reasoning; None is ``<think>`` and ``</think>``.
        token_budget: Most padded tokens of one forward.
    """

    def __init__(
        self,
        path: str,
        *,
        mode: ScoreMode = "hard_sum",
        weights: Sequence[float] | None = None,
        paper_after: str = "",
        tags: ThinkTags | None = None,
        token_budget: int = 32768,
    ):
        if weights is not None and len(weights) != len(AXES):
            raise ValueError(f"quality.weights has {len(weights)} numbers; give one for each of {list(AXES)}.")
        if token_budget < 1:
            raise ValueError(f"quality.token_budget is {token_budget}; it must be at least 1.")
        self.scoring = Scoring(mode=mode, weights=weights)
        read_config(path)
        self.path, self.paper_after, self.tags, self.token_budget = path, paper_after, tags, token_budget
        self._model: MultiObjectiveRewardModel | None = None

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        """ "reward" and what each axis is worth, float32 ``(B,)`` each, in the order of ``prompts``.

        Raises:
            ValueError: A prompt does not hold ``paper_after``.
        """
        model = self._loaded()
        rows = {}
        for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            row = self._row(model, self._paper(prompt), question_in(completion, self.tags))
            if row is not None:
                rows[place] = row
        reward, axes = torch.zeros(len(prompts)), torch.zeros(len(prompts), len(AXES))
        if rows:
            places = torch.tensor(list(rows))
            reward[places], axes[places] = model.score(
                list(rows.values()), self.scoring, token_budget=self.token_budget
            )
        return {"reward": reward, **dict(zip(AXES, axes.unbind(1), strict=True))}

    def _paper(self, prompt: str) -> str:
        before, mark, paper = prompt.partition(self.paper_after) if self.paper_after else ("", "", prompt)
        if self.paper_after and not mark:
            raise ValueError(
                f"quality.paper_after is {self.paper_after!r}, which is not in the prompt {before[:60]!r}; give what "
                "stands before the paper in every prompt."
            )
        return paper

    @staticmethod
    def _row(model: MultiObjectiveRewardModel, paper: str, question: str) -> tuple[int, ...] | None:
        try:
            return model.prompts.ids(paper, question) if question else None
        except QuestionTooLong:
            return None

    def _loaded(self) -> MultiObjectiveRewardModel:
        if self._model is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
            with torch.random.fork_rng(devices=[]):  # so that a resumed run draws what it would have drawn
                self._model = load_reward_model(self.path, device)
        return self._model
