"""Skills as one label each: what a planner writes, and how its words are read."""

from collections.abc import Mapping, Sequence
from typing import Any


class SkillLabels:
    """The label of each skill, one token in the model's vocabulary.

    Args:
        labels: By skill: "<greet>" for a tiny model whose words we choose, "A", "B" for a model of the hub.  They are
            read from the left, so no label may begin another.

    Raises:
        ValueError: A blank label, or one that begins another.
    """

    def __init__(self, labels: Mapping[str, str]):
        self.labels = {skill: str(label) for skill, label in labels.items()}
        if not self.labels or any(not label or label != label.strip() for label in self.labels.values()):
            raise ValueError(f"SkillLabels: {self.labels} must give each skill a label without spaces around it.")
        for skill, label in self.labels.items():
            for other, longer in self.labels.items():
                if other != skill and longer.startswith(label):
                    raise ValueError(
                        f"SkillLabels: the label {label!r} of {skill!r} begins {longer!r} of {other!r}; a chain of "
                        "labels could then be read in two ways."
                    )

    @classmethod
    def letters(cls, skills: Sequence[str]) -> "SkillLabels":
        """A, B, C ...: single tokens in the vocabularies of most models; for 26 skills at most."""
        if len(skills) > 26:
            raise ValueError(f"SkillLabels.letters: there are {len(skills)} skills and 26 letters; give labels.")
        return cls({skill: chr(ord("A") + i) for i, skill in enumerate(skills)})

    def __getitem__(self, skill: str) -> str:
        return self.labels[skill]

    def check_skills(self, skills: Sequence[str]) -> None:
        """Raise ValueError unless exactly these skills have labels."""
        if set(skills) != set(self.labels):
            raise ValueError(
                f"SkillLabels has labels for {list(self.labels)}; the procedure's skills are {list(skills)}."
            )

    def write(self, chain: Sequence[str]) -> str:
        """A chain of skills as a planner writes it.

        Example:
            >>> SkillLabels({"greet": "A", "close": "B"}).write(["close", "greet"])
            'B A'
        """
        return " ".join(self.labels[skill] for skill in chain)

    def read_chain(self, text: str, most: int) -> tuple[str, ...]:
        """The skills whose labels open a text, ``most`` of them at most; empty if it opens with anything else.

        Example:
            >>> SkillLabels({"greet": "A", "close": "B"}).read_chain("BA then", 3)
            ('close', 'greet')
        """
        chain: list[str] = []
        while len(chain) < most:
            skill, text = self.read_first(text)
            if skill is None:
                break
            chain.append(skill)
        return tuple(chain)

    def read_first(self, text: str) -> tuple[str | None, str]:
        """The skill whose label opens a text, or None, and the text behind it."""
        text = text.strip()
        for skill, label in self.labels.items():
            if text.startswith(label):
                return skill, text[len(label) :].strip()
        return None, text

    def token_ids(self, tokenizer: Any) -> dict[str, int]:
        """The token of each skill's label.

        Raises:
            ValueError: A label that is not exactly one known token, or two that are the same.
        """
        found: dict[str, int] = {}
        for skill, label in self.labels.items():
            ids = tokenizer(label, add_special_tokens=False)["input_ids"]
            if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
                raise ValueError(
                    f"The label {label!r} of {skill!r} is {tokenizer.convert_ids_to_tokens(ids)} in the vocabulary of "
                    f"{tokenizer.name_or_path!r}; a label must be one token: add it to tiny.words, or take letters."
                )
            found[skill] = ids[0]
        return found
