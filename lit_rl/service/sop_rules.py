"""Rules of a standard operating procedure: which skill waits for which, and which is over (gopo.md section 8)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class SkillRule:
    """One rule over the set of skills done so far.

    Attributes:
        name: In facts and metrics.
        number: Its place in the procedure, from 1.
        kind: "precede", "require_before", "once" or "forbid".
        skills: Those it speaks about.
        needs: All of these must have been done before, whatever else was.
        after: If nothing is in ``needs``: the skills are forbidden once all of these have been done ...
        until: ... and as long as none of these has.
    """

    name: str
    number: int
    kind: str
    skills: frozenset[str]
    needs: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    until: frozenset[str] = frozenset()

    def breaks(self, done: frozenset[str], skill: str) -> bool:
        """Whether doing ``skill`` now breaks the rule."""
        if skill not in self.skills:
            return False
        if self.needs:
            return not self.needs <= done
        return self.after <= done and not self.until & done

    @property
    def watched(self) -> frozenset[str]:
        """The skills whose being done matters to it."""
        return self.needs | self.after | self.until

    def __str__(self) -> str:
        return f"rule {self.number} ({self.kind})"


def parse_rule(entry: Any, number: int, skills: Sequence[str], owner: str) -> SkillRule:
    """A rule as it is written in YAML.

    Each has a ``type`` and, if it is to be called other than by its number, a ``name``; a value is a skill or a list::

        {type: precede, first: greet, then: [ask_need, close]}          # none of the latter before the former
        {type: require_before, skill: close, required: answer_policy}   # a disclosure without which it may not be done
        {type: once, skill: greet}                                      # at most once
        {type: forbid, skill: offer_coupon, after: close, until: greet} # after one and until the other; both optional

    Raises:
        ValueError: An unknown type, key or skill, a missing key, or a skill that would wait for itself.
    """
    where = f"{owner}: rule {number}"
    if not isinstance(entry, Mapping) or str(entry.get("type")) not in _READERS:
        raise ValueError(f"{where} is {entry!r}; it must be a mapping with a type, one of {sorted(_READERS)}.")
    kind = str(entry["type"])
    needed, optional, read = _READERS[kind]
    keys = {str(key) for key in entry} - {"type", "name"}
    if wrong := sorted(keys - {*needed, *optional}) + sorted(set(needed) - keys):
        takes = " and ".join(needed) + (f", and may have {' and '.join(optional)}" if optional else "")
        raise ValueError(
            f"{where} ({kind}): {wrong[0]!r} is {'missing' if wrong[0] in needed else 'unknown'}; it takes {takes}."
        )
    named = {key: _skills(entry[key], f"{where} ({kind}): {key}", skills) for key in keys}
    if kind == "once" and len(named["skill"]) != 1:
        raise ValueError(f"{where} (once): skill is {entry['skill']!r}; give one skill, and further rules for others.")
    name = str(entry.get("name", f"{kind} {number}"))
    rule = SkillRule(name=name, number=number, kind=kind, **read(named))
    if both := sorted(rule.skills & rule.needs):
        raise ValueError(f"{where} ({kind}): {both[0]!r} would have to be done before itself.")
    return rule


def _skills(value: Any, where: str, known: Sequence[str]) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise ValueError(f"{where} is {value!r}; give a skill or a list of skills.")
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names {name!r}; the skills are {list(known)}.")
    return frozenset(names)


_Named = Mapping[str, frozenset[str]]
_READERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[_Named], dict[str, frozenset[str]]]]] = {
    "precede": (("first", "then"), (), lambda named: {"skills": named["then"], "needs": named["first"]}),
    "require_before": (("skill", "required"), (), lambda named: {"skills": named["skill"], "needs": named["required"]}),
    "once": (("skill",), (), lambda named: {"skills": named["skill"], "after": named["skill"]}),
    "forbid": (
        ("skill",),
        ("after", "until"),
        lambda named: {
            "skills": named["skill"],
            "after": named.get("after", frozenset()),
            "until": named.get("until", frozenset()),
        },
    ),
}
