"""IntelliReward's model: one backbone, three independent heads (arXiv 2602.15849, section 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lit_rl.papers.records import AXES
from lit_rl.reward_models.backbone import Backbone, BackboneConfig
from lit_rl.reward_models.chunk_head import ChunkTransformer
from lit_rl.reward_models.heads import HeadConfig, logits_of, seeded
from lit_rl.reward_models.prompts import RUBRIC, QuestionPrompts
from lit_rl.reward_models.scores import Scoring, reward_model_loss


@dataclass(kw_only=True)
class RewardModelConfig:
    """What a reward model is made of.

    Args:
        backbone: The causal LM.
        head: Of each axis.
        pool_tokens: States pooled into the heads' input: 50 as published, 1 is the last token as in the authors' code,
            None all tokens.
        rubric: The system turn of the prompt.
        train_backbone: Whether the backbone's weights are trained with the heads.
        seed: Of the heads' weights.
    """

    backbone: BackboneConfig
    head: HeadConfig = field(default_factory=ChunkTransformer)
    pool_tokens: int | None = 50
    rubric: str = RUBRIC
    train_backbone: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool_tokens is not None and self.pool_tokens < 1:
            raise ValueError(f"model.pool_tokens is {self.pool_tokens}; it must be at least 1, or null for all tokens.")
        if self.train_backbone and self.backbone.quantization:
            raise ValueError("model.train_backbone cannot train weights in 4 bits; leave backbone.quantization out.")


class MultiObjectiveRewardModel(nn.Module):
    """Logits of effort, evidence and grounding of a question about a paper.

    A frozen backbone is no part of the module's parameters: optimizers, checkpoints and strategies see the heads alone.

    Attributes:
        backbone: The loaded causal LM.
        prompts: Renders what it reads.
        heads: By axis.

    Args:
        config: What it is made of.
        device: Where to.
    """

    def __init__(self, config: RewardModelConfig, device: torch.device | str = "cpu"):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, device)
        self.prompts = QuestionPrompts(
            self.backbone.tokenizer,
            max_length=self.backbone.max_length,
            rubric=config.rubric,
            template_options=config.backbone.template_options,
        )
        width = self.backbone.width
        heads = {axis: seeded(config.head, width, 3 * config.seed + number) for number, axis in enumerate(AXES)}
        self.heads = nn.ModuleDict(heads).to(device)
        self.trained_backbone: nn.Module | None = None
        if config.train_backbone:
            self.trained_backbone = self.backbone.model.requires_grad_(True)

    def train(self, mode: bool = True) -> "MultiObjectiveRewardModel":
        """The heads' dropout follows the mode; that of the backbone stays off."""
        super().train(mode)
        if self.trained_backbone is not None:
            self.trained_backbone.eval()
        return self

    def represent(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """What the heads read of rendered prompts, float32 ``(N, H)``, in one forward of the backbone."""
        trains = self.config.train_backbone and torch.is_grad_enabled()
        return self.backbone.represent(rows, pool_tokens=self.config.pool_tokens, with_gradient=trains)

    def represent_all(self, rows: Sequence[Sequence[int]], *, token_budget: int) -> Tensor:
        """As `represent`, without gradient and in as many forwards as it takes: a paper is read once for all questions.

        Args:
            rows: Token ids.
            token_budget: Most padded tokens of one forward.
        """
        own = [tuple(row) for row in rows]
        return self.backbone.represent_all(own, pool_tokens=self.config.pool_tokens, token_budget=token_budget)

    def logits(self, representations: Tensor) -> Tensor:
        """Logits float32 ``(B, axes, 2)`` of representations ``(B, H)``."""
        return logits_of(self.heads, representations.float())

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `reward_model_loss`."""
        return reward_model_loss(logits, labels)

    @torch.no_grad()
    def score(self, rows: Sequence[Sequence[int]], scoring: Scoring, *, token_budget: int) -> tuple[Tensor, Tensor]:
        """Rewards ``(N,)`` and what each axis is worth ``(N, axes)`` of rendered prompts, float32 on the CPU.

        Args:
            rows: Token ids.
            scoring: How logits become rewards.
            token_budget: Most padded tokens of one forward.
        """
        was_training = self.training
        self.eval()
        logits = self.logits(self.represent_all(rows, token_budget=token_budget)).cpu()
        self.train(was_training)
        return scoring.total(logits), scoring.of_axes(logits)
