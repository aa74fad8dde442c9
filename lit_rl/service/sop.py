"""A standard operating procedure as a finite automaton over the skills done so far (GOPO, arXiv 2602.15854)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_rl.service.reply_rules import ReplyRule, parse_reply_rule
from lit_rl.service.sop_rules import SkillRule, parse_rule

_KEYS = ("id", "skills", "start", "safe_skill", "goal_skill", "rules", "replies")
_MOST_WATCHED = 14  # skills whose being done matters: a state for each set of them


class Procedure:
    """Which skills may be done when, and what their replies must say.

    As published: skills form a pool defined by hand, and rules are hard.  Our reading: a state is the set of skills
    done so far, of those that any rule watches; so there are finitely many, numbered from 0, the start.  Every skill
    leads somewhere from every state, forbidden ones too: whoever may break a rule has then done it.

    Args:
        id: Name of the procedure.
        skills: The pool; a skill's number is its place here.
        start: Name of the state in which nothing has been done.
        safe_skill: A skill that is always admissible, such as handing over to a human.
        goal_skill: The skill that the procedure is for.
        rules: See `lit_rl.service.sop_rules.parse_rule`.
        replies: By skill; one without an entry may be carried out by any reply of a moderate length.

    Raises:
        ValueError: A malformed rule, a safe skill that is not always admissible, a goal that cannot be reached, a skill
            that is never admissible: one sentence with the numbers of the rules.
    """

    def __init__(
        self,
        *,
        id: str,
        skills: Sequence[str],
        safe_skill: str,
        goal_skill: str,
        start: str = "start",
        rules: Sequence[Any] = (),
        replies: Mapping[str, ReplyRule] | None = None,
    ):
        self.id, self.skills, self.start = id, tuple(skills), start
        self.safe_skill, self.goal_skill = safe_skill, goal_skill
        self._owner = f"Procedure {id!r}"
        self._check_skills()
        self.rules = tuple(parse_rule(rule, i, self.skills, self._owner) for i, rule in enumerate(rules, start=1))
        self._check_rule_names()
        self._check_known({"replies": replies or {}})
        self.replies = {skill: (replies or {}).get(skill, ReplyRule()) for skill in self.skills}
        self._states = self._find_states()
        self._numbers = {state: i for i, state in enumerate(self._states)}
        self._names = {self.state_name(i): i for i in range(len(self._states))}
        self._masks = [
            tuple(not any(rule.breaks(state, skill) for rule in self.rules) for skill in self.skills)
            for state in self._states
        ]
        self._ahead: dict[tuple[int, int], tuple[bool, ...]] = {}
        self._check_reachable()

    @classmethod
    def from_mapping(cls, mapping: Any, where: str = "The procedure") -> "Procedure":
        """A procedure as it is written in YAML; ``where`` opens the sentences about what is not one."""
        if not isinstance(mapping, Mapping):
            raise ValueError(f"{where} is {mapping!r}; it must be a mapping with {list(_KEYS)}.")
        if unknown := sorted(map(str, mapping.keys() - set(_KEYS))):
            raise ValueError(f"{where} has an unknown key {unknown[0]!r}; it takes {list(_KEYS)}.")
        for key in ("id", "skills", "safe_skill", "goal_skill"):
            if key not in mapping:
                raise ValueError(f"{where} has no {key!r}; it needs id, skills, safe_skill and goal_skill.")
        fields = dict(mapping)
        for key, kind, words in (("skills", list, "a list"), ("rules", list, "a list"), ("replies", dict, "a mapping")):
            if not isinstance(fields.setdefault(key, kind()), kind):
                raise ValueError(f"{where}: {key} is {fields[key]!r}; it must be {words}.")
        replies = {
            skill: parse_reply_rule(rule, f"{where}: the reply of {skill!r}")
            for skill, rule in fields["replies"].items()
        }
        return cls(**{**fields, "replies": replies})

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Procedure":
        """Read a procedure from a file.

        Raises:
            ValueError: No such file, no YAML, or no procedure; the sentence names the file.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"There is no procedure {path}; give a YAML file.")
        try:
            mapping = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        try:
            return cls.from_mapping(mapping, where=str(path))
        except ValueError as error:
            raise error if str(error).startswith(str(path)) else ValueError(f"{path}: {error}") from error

    # -- the automaton -----------------------------------------------------------------------------------------

    @property
    def num_states(self) -> int:
        return len(self._states)

    def state_name(self, state: int) -> str:
        """The watched skills that have been done, in the order of the pool: ``greet+ask_need``."""
        done = self._states[state]
        return "+".join(skill for skill in self.skills if skill in done) or self.start

    def state_number(self, name: str) -> int:
        """The state of that name; raises ValueError if there is none."""
        if name not in self._names:
            raise ValueError(f"{self._owner} has no state {name!r}; its states are like {list(self._names)[:3]}.")
        return self._names[name]

    def done(self, state: int) -> tuple[str, ...]:
        """The watched skills that have been done, in the order of the pool."""
        return tuple(skill for skill in self.skills if skill in self._states[state])

    def broken_rules(self, state: int, skill: str) -> tuple[str, ...]:
        """Names of the rules that doing ``skill`` now would break."""
        self._check_known({"A dialogue": [skill]})
        return tuple(rule.name for rule in self.rules if rule.breaks(self._states[state], skill))

    def allowed(self, state: int) -> tuple[bool, ...]:
        """For each skill of the pool, whether it may be done now; never all False."""
        return self._masks[state]

    def admissible(self, state: int) -> tuple[str, ...]:
        """The skills that may be done now, by name."""
        return tuple(skill for skill, may in zip(self.skills, self.allowed(state), strict=True) if may)

    def ahead(self, state: int, steps: int) -> tuple[bool, ...]:
        """For each skill, whether it may be done now or after up to ``steps`` admissible skills."""
        if (state, steps) not in self._ahead:
            states = {state}
            for _ in range(steps):
                states |= {self.next(s, skill) for s in states for skill in self.admissible(s)}
            masks = [self.allowed(s) for s in states]
            self._ahead[state, steps] = tuple(any(may) for may in zip(*masks, strict=True))
        return self._ahead[state, steps]

    def next(self, state: int, skill: str) -> int:
        """The state once ``skill`` has been done."""
        return self._numbers[self._after(self._states[state], skill)]

    # -- construction ------------------------------------------------------------------------------------------

    def _watched(self) -> frozenset[str]:
        return frozenset[str]().union(*(rule.watched for rule in self.rules))

    def _after(self, done: frozenset[str], skill: str) -> frozenset[str]:
        return done | ({skill} & self._watched())

    def _find_states(self) -> list[frozenset[str]]:
        if len(self._watched()) > _MOST_WATCHED:
            raise ValueError(
                f"{self._owner}: its rules watch {len(self._watched())} skills, and each set of them is a state; write "
                f"rules about at most {_MOST_WATCHED}."
            )
        states = [frozenset[str]()]
        known = set(states)
        for state in states:  # grows while it is read
            for skill in self.skills:
                after = self._after(state, skill)
                if after not in known:
                    known.add(after)
                    states.append(after)
        return states

    def _check_skills(self) -> None:
        if not self.skills or not all(map(_is_name, self.skills)) or len(set(self.skills)) != len(self.skills):
            raise ValueError(
                f"{self._owner}: skills are {list(self.skills)}; give different names, each a word without '+' or "
                "spaces."
            )
        if not _is_name(self.start) or self.start in self.skills:
            raise ValueError(f"{self._owner}: start is {self.start!r}; give a word that is not a skill.")
        self._check_known({"safe_skill": [self.safe_skill], "goal_skill": [self.goal_skill]})

    def _check_known(self, named: Mapping[str, Any]) -> None:
        for where, skills in named.items():
            for skill in skills:
                if skill not in self.skills:
                    raise ValueError(f"{self._owner}: {where} names {skill!r}; the skills are {list(self.skills)}.")

    def _check_rule_names(self) -> None:
        seen: dict[str, SkillRule] = {}
        for rule in self.rules:
            if (other := seen.setdefault(rule.name, rule)) is not rule:
                raise ValueError(f"{self._owner}: {other} and {rule} are both called {rule.name!r}; name them apart.")

    def _check_reachable(self) -> None:
        for rule in self.rules:
            if any(rule.breaks(state, self.safe_skill) for state in self._states):
                raise ValueError(
                    f"{self._owner}: {rule} can forbid the safe skill {self.safe_skill!r}, which must always be "
                    "admissible; take it out of the rule."
                )
        reachable, todo = {0}, [0]
        for state in todo:  # grows while it is read
            after = {self.next(state, skill) for skill in self.admissible(state)} - reachable
            reachable |= after
            todo += after
        possible = {skill for state in reachable for skill in self.admissible(state)}
        never = [skill for skill in self.skills if skill not in possible]
        if never:
            rules = " and ".join(str(rule) for rule in self.rules if rule.skills & set(never))
            goal = " (the goal skill among them)" if self.goal_skill in never else ""
            raise ValueError(
                f"{self._owner}: {' and '.join(map(repr, never))} can never be done{goal}, because of {rules}: their "
                "skills wait for each other, or are always forbidden; change or drop one."
            )


def _is_name(word: Any) -> bool:
    return isinstance(word, str) and bool(word) and not any(c == "+" or c.isspace() for c in word)
