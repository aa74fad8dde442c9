"""Environments: the worlds in which parties talk and act; each decides whose turn it is and what is paid."""

from lit_rl.environments.answer_sets import AnswerSet, AutoregressiveToy, CategoricalToy, graded_quality
from lit_rl.environments.blind_search import best_blind_search
from lit_rl.environments.choice_layouts import ChoiceLayout
from lit_rl.environments.choice_tasks import ChoiceTasks
from lit_rl.environments.code_columns import CodeColumns
from lit_rl.environments.code_tasks import CODE_INSTRUCTION, CodeTasks
from lit_rl.environments.colour_fix import ColourFix, ColourHint
from lit_rl.environments.countdown import CountdownTasks, countdown_solutions
from lit_rl.environments.didactic import DidacticDialogue
from lit_rl.environments.digit_edit import DigitEdit, DigitHint
from lit_rl.environments.hidden_bits import BitTeacher, HiddenBits, best_asks, plan_value
from lit_rl.environments.hinted_tasks import HintedTasks
from lit_rl.environments.labelled_tasks import LabelledTasks
from lit_rl.environments.leaks import leaks
from lit_rl.environments.maze_hint import MazeFeedback, MazeHint
from lit_rl.environments.mixture import Mixture
from lit_rl.environments.modular_chain import ModularChain
from lit_rl.environments.navigation import GridNavigation
from lit_rl.environments.number_search import NumberSearch
from lit_rl.environments.pointer_chase import PointerChase
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.q_priming import QPrimedDialogue
from lit_rl.environments.question_writers import AskWrongDigit, FixedQuestion
from lit_rl.environments.reasoning import ReasoningGymTasks
from lit_rl.environments.reply_classes import ReplyClass, classify_reply
from lit_rl.environments.rows import read_rows
from lit_rl.environments.sharded import ShardedDialogue, max_messages
from lit_rl.environments.sharded_tasks import ShardedLinear, ShardedProblem, ShardedSource, ShardedTasks
from lit_rl.environments.sharded_user import USER_INSTRUCTION, UserContext, scripted_user
from lit_rl.environments.stored_prompts import StoredPrompts
from lit_rl.environments.stored_tasks import StoredTasks
from lit_rl.environments.teacher_words import STUDENT_INSTRUCTION, TEACHER_INSTRUCTION
from lit_rl.environments.teachers import HigherLower, TeacherContext
from lit_rl.environments.trace_solutions import corrupt
from lit_rl.environments.trace_styles import trace, trace_style
from lit_rl.environments.tracking_swaps import TrackingSwaps

__all__ = [
    "CODE_INSTRUCTION",
    "STUDENT_INSTRUCTION",
    "TEACHER_INSTRUCTION",
    "USER_INSTRUCTION",
    "AnswerSet",
    "AskWrongDigit",
    "Attempt",
    "AutoregressiveToy",
    "BitTeacher",
    "CategoricalToy",
    "ChoiceLayout",
    "ChoiceTasks",
    "CodeColumns",
    "CodeTasks",
    "ColourFix",
    "ColourHint",
    "CountdownTasks",
    "DidacticDialogue",
    "DigitEdit",
    "DigitHint",
    "FixedQuestion",
    "GridNavigation",
    "HiddenBits",
    "HigherLower",
    "HintedTasks",
    "LabelledTasks",
    "MazeFeedback",
    "MazeHint",
    "Mixture",
    "ModularChain",
    "NumberSearch",
    "PointerChase",
    "Problem",
    "QPrimedDialogue",
    "ReasoningGymTasks",
    "ReplyClass",
    "ShardedDialogue",
    "ShardedLinear",
    "ShardedProblem",
    "ShardedSource",
    "ShardedTasks",
    "StoredPrompts",
    "StoredTasks",
    "TaskSource",
    "TeacherContext",
    "TrackingSwaps",
    "UserContext",
    "best_asks",
    "best_blind_search",
    "classify_reply",
    "corrupt",
    "countdown_solutions",
    "graded_quality",
    "leaks",
    "max_messages",
    "plan_value",
    "read_rows",
    "scripted_user",
    "trace",
    "trace_style",
]
