"""Problems with a few possible answers as questions with options."""

import re
from collections.abc import Mapping
from dataclasses import replace

from lit_rl.environments.choices import choice_prompt, lettered
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.verification.labels import canonical_label, extract_label, verify_label
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class LabelledTasks:
    r"""Another source's problems, with a letter for each possible answer; the right answer is a letter.

    Of reasoning-gym, whose tasks stand in for the published sets where nothing can be downloaded::

        tasks: {class_path: lit_rl.environments.ReasoningGymTasks, init_args: {task: syllogism}}
        options: {A: "Yes", B: "No"}

        tasks: {class_path: lit_rl.environments.ReasoningGymTasks, init_args: {task: color_cube_rotation}}
        option_pattern: 'a (\w+) (?:top|right|front|left|back|bottom) side'

    Args:
        tasks: Whose answers are to be labelled.
        options: Answers that are possible in every problem, by letter; words of them are read as answers too.
        option_pattern: Instead, a regular expression that finds the possible answers in a prompt: what its first group
            matches, each time it matches, split at commas.
        tags: Of the think block that must be closed for an answer to count; None reads the whole reply.

    Raises:
        ValueError: Not exactly one of ``options`` and ``option_pattern``, or (of a problem, when it is asked for) no
            options in its prompt or an answer that is none of them.
    """

    def __init__(
        self,
        tasks: TaskSource,
        options: Mapping[str, str] | None = None,
        option_pattern: str | None = None,
        *,
        tags: ThinkTags | None = DEFAULT_TAGS,
    ):
        if (options is None) == (option_pattern is None):
            raise ValueError("LabelledTasks: give either options or option_pattern.")
        if option_pattern is not None and re.compile(option_pattern).groups < 1:
            raise ValueError(f"LabelledTasks.option_pattern {option_pattern!r} needs a group (...) around an answer.")
        self.tasks, self.options, self.option_pattern, self.tags = tasks, options, option_pattern, tags
        self.name = tasks.name
        self.aliases = {text: label for label, text in (options or {}).items()}
        if options is not None:
            extract_label("", list(options), self.aliases)  # checks the labels
        self[0]  # says now what would go wrong later

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Problem:
        problem = self.tasks[index]
        try:
            options = dict(self.options) if self.options else self._found(problem.prompt)
            gold = canonical_label(problem.gold, list(options), self.aliases, options)
        except ValueError as error:
            raise ValueError(f"LabelledTasks: problem {problem.id} of {self.name}: {error}") from error
        return replace(
            problem,
            prompt=choice_prompt([problem.prompt.strip()], options),
            gold=gold,
            private={**problem.private, "answer": gold},
            meta={**problem.meta, "labels": list(options), "aliases": self.aliases, "options": options},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        known = {name: problem.meta[name] for name in ("labels", "aliases", "options")}
        return verify_label(utterance, problem.gold, **known, tags=self.tags)

    def _found(self, prompt: str) -> dict[str, str]:
        """Options in the order in which the prompt names them."""
        matches = [match[1] for match in re.finditer(self.option_pattern or "", prompt)]
        texts = [text.strip() for match in matches for text in match.split(",")]
        return lettered(list(dict.fromkeys(texts)))
