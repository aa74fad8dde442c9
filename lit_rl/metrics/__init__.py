"""Metrics: what validation measures, in the style of torchmetrics; nothing else of lit-rl behind them."""

from lit_rl.metrics.accuracy_by_turn import AccuracyByTurn, AttemptShares, TurnSummary
from lit_rl.metrics.best_of_n import BestOfN, best_of_n
from lit_rl.metrics.bleu import CorpusBLEU, corpus_bleu, sentence_bleu
from lit_rl.metrics.chosen_of_n import ChosenOfN, chosen_of_n
from lit_rl.metrics.confidence import CalibrationError, Solvability
from lit_rl.metrics.conversation import (
    ConversationSummary,
    conversation_counts,
    conversation_score,
    conversation_shares,
    percentile,
    sharded_performance,
)
from lit_rl.metrics.diversity import (
    AnswerDiversity,
    LexicalDiversity,
    SemanticDiversity,
    SequenceEntropy,
    SyntacticDiversity,
)
from lit_rl.metrics.engagement import Milestones, tse
from lit_rl.metrics.expert_skills import dialogue_esndcg, esndcg
from lit_rl.metrics.faithfulness import (
    AnswerAccuracy,
    AreasOverCurve,
    LengthWeightedArea,
    area_over_curve,
    mistake_index,
)
from lit_rl.metrics.figure import Figure
from lit_rl.metrics.first_page_bias import FirstPageBias, first_page_bias, later_only, page_profile
from lit_rl.metrics.functional import (
    accuracy_by_turn,
    area_under_turns,
    attempt_counts,
    attempt_shares,
    conditional_success,
    first_jump,
    gain,
    mean_turns_to_solve,
    normalized_gain,
    solve_counts,
    solve_turns,
)
from lit_rl.metrics.hints import HintedItem, HintFaithfulness, HintUsage, Sycophancy
from lit_rl.metrics.interval import Interval, seed_interval
from lit_rl.metrics.label_agreement import LabelAgreement
from lit_rl.metrics.questions import QuestionFigures
from lit_rl.metrics.reply_quality import RatedReply, ReplyRater, RuleRater, gre
from lit_rl.metrics.service import ServedDialogue, ServiceFigures, ServiceScoring, ServiceSummary
from lit_rl.metrics.traces import Legibility, LegibilityJudge, backtracking_count, relative_change

__all__ = [
    "AccuracyByTurn",
    "AnswerAccuracy",
    "AnswerDiversity",
    "AreasOverCurve",
    "AttemptShares",
    "BestOfN",
    "CalibrationError",
    "ChosenOfN",
    "ConversationSummary",
    "CorpusBLEU",
    "Figure",
    "FirstPageBias",
    "HintFaithfulness",
    "HintUsage",
    "HintedItem",
    "Interval",
    "LabelAgreement",
    "Legibility",
    "LegibilityJudge",
    "LengthWeightedArea",
    "LexicalDiversity",
    "Milestones",
    "QuestionFigures",
    "RatedReply",
    "ReplyRater",
    "RuleRater",
    "SemanticDiversity",
    "SequenceEntropy",
    "ServedDialogue",
    "ServiceFigures",
    "ServiceScoring",
    "ServiceSummary",
    "Solvability",
    "Sycophancy",
    "SyntacticDiversity",
    "TurnSummary",
    "accuracy_by_turn",
    "area_over_curve",
    "area_under_turns",
    "attempt_counts",
    "attempt_shares",
    "backtracking_count",
    "best_of_n",
    "chosen_of_n",
    "conditional_success",
    "conversation_counts",
    "conversation_score",
    "conversation_shares",
    "corpus_bleu",
    "dialogue_esndcg",
    "esndcg",
    "first_jump",
    "first_page_bias",
    "gain",
    "gre",
    "later_only",
    "mean_turns_to_solve",
    "mistake_index",
    "normalized_gain",
    "page_profile",
    "percentile",
    "relative_change",
    "seed_interval",
    "sentence_bleu",
    "sharded_performance",
    "solve_counts",
    "solve_turns",
    "tse",
]
