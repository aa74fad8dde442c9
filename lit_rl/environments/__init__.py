"""Environments: the worlds in which parties talk and act; each decides whose turn it is and what is paid."""

from lit_rl.environments.didactic import DidacticDialogue
from lit_rl.environments.number_search import NumberSearch
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.teachers import HigherLower, TeacherContext

__all__ = ["Attempt", "DidacticDialogue", "HigherLower", "NumberSearch", "Problem", "TaskSource", "TeacherContext"]
