"""Tasks in two lots by their text, so that what is validated on was never trained on."""

from lit_rl.environments import Problem, TaskSource
from lit_rl.stream_keys import stream_key
from lit_rl.verification.attempts import Attempt


class Lot:
    """The tasks of a source whose text falls into one of two lots; the same text never falls into both.

    Args:
        tasks: All of them.
        held_out: The smaller lot, to validate on, or the larger one, to train on.
        one_in: The smaller lot has about one text in so many.

    Raises:
        ValueError: ``one_in`` is below 2, or no task falls into the lot.
    """

    def __init__(self, tasks: TaskSource, held_out: bool, one_in: int = 5):
        if one_in < 2:
            raise ValueError(f"Lot.one_in is {one_in}; with less than 2 nothing would be left to train on.")
        self.tasks, self.name = tasks, tasks.name
        texts = (tasks[i].prompt for i in range(len(tasks)))
        self.places = [i for i, text in enumerate(texts) if (stream_key(text) % one_in == 0) == held_out]
        if not self.places:
            raise ValueError(f"No task of {tasks.name} falls into the lot with held_out={held_out}; give more tasks.")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Problem:
        return self.tasks[self.places[index]]

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return self.tasks.verify(problem, utterance)
