"""Open-ended prompts, from local files or the Hugging Face hub: stories, lists, whatever has no right answer."""

from pathlib import Path

from lit_rl.environments.parts import check_part, part_of
from lit_rl.environments.problems import Attempt, Problem, ProblemList
from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import cell_text, check_ids


class StoredPrompts(ProblemList):
    """One prompt for each row of a data set; whatever is said is an answer, and none is right.

    What an answer is worth is for a reward model or another quality to say.  Two parts with the same ``shuffle_seed``
    share no row, as in `StoredTasks`.  As YAML::

        class_path: lit_rl.environments.StoredPrompts
        init_args: {path: stories.jsonl, prompt: prompt, shuffle_seed: 0, take: 2000}

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        prompt: Column with the prompt.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        id: Column that names prompts; None takes the number of the row, counted from 1.
        shuffle_seed: Of a fixed order of all rows; None keeps theirs.
        skip: Rows of that order that are left out at its beginning.
        take: Rows that are taken then; None takes all.

    Raises:
        ValueError: As `read_rows`, or a row whose prompt is empty or no text, or an id that occurs twice, or fewer rows
            than ``skip`` and ``take`` need.
    """

    def __init__(
        self,
        path: str | Path,
        prompt: str = "prompt",
        *,
        split: str = "train",
        subset: str | None = None,
        id: str | None = None,
        shuffle_seed: int | None = None,
        skip: int = 0,
        take: int | None = None,
    ):
        check_part("StoredPrompts", skip, take)
        self.name = str(path)
        columns = [prompt] if id in (None, prompt) else [prompt, str(id)]
        rows = read_rows(path, columns, split=split, subset=subset)
        chosen = part_of(self.name, len(rows), shuffle_seed, skip, take)
        self._problems = []
        for i in chosen:
            where = f"{self.name}, row {i + 1}"
            own_id = str(i + 1) if id is None else cell_text(rows[i][id], id, where)
            text = cell_text(rows[i][prompt], prompt, where)
            self._problems.append(Problem(id=own_id, domain=Path(self.name).stem, prompt=text, gold=""))
        check_ids(self.name, ((problem.id, i + 1) for problem, i in zip(self._problems, chosen, strict=True)))

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        answer = utterance.strip()
        return Attempt("answer", answer) if answer else Attempt("empty")
