"""Environments: the worlds in which parties talk and act; each decides whose turn it is and what is paid."""

from lit_rl.environments.blind_search import best_blind_search
from lit_rl.environments.didactic import DidacticDialogue
from lit_rl.environments.digit_edit import DigitEdit, DigitHint
from lit_rl.environments.leaks import leaks
from lit_rl.environments.number_search import NumberSearch
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.reasoning import ReasoningGymTasks
from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import StoredTasks
from lit_rl.environments.teacher_words import STUDENT_INSTRUCTION, TEACHER_INSTRUCTION
from lit_rl.environments.teachers import HigherLower, TeacherContext

__all__ = [
    "STUDENT_INSTRUCTION",
    "TEACHER_INSTRUCTION",
    "Attempt",
    "DidacticDialogue",
    "DigitEdit",
    "DigitHint",
    "HigherLower",
    "NumberSearch",
    "Problem",
    "ReasoningGymTasks",
    "StoredTasks",
    "TaskSource",
    "TeacherContext",
    "best_blind_search",
    "leaks",
    "read_rows",
]
