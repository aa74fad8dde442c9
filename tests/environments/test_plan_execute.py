"""Plan and action in a world: subgoals from turn to turn (hiper.md 2.3, 2.4, 2.5), prompts (2.2), facts (2.6)."""

from typing import Any

import pytest

from lit_rl.environments.base import Outcome, Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode, PlanExecuteState
from lit_rl.environments.world_episode import ActEpisode
from lit_rl.environments.world_prompts import WorldPrompts, WorldView
from lit_rl.verification.plan_execute import parse_plan_execute, render_plan_execute
from lit_rl.worlds.base import Observation, Step, WorldFailure, admitted


class Corridor:
    """Three steps to the right; "wait" may be said too."""

    task = "reach the end"

    def __init__(self, limit: int = 9, reward: float = 10.0):
        self.place, self.limit, self.reward, self.taken, self.closed = 0, limit, reward, [], 0

    def reset(self) -> Observation:
        return Observation("place 0", ("go right", "wait"))

    def step(self, action: str) -> Step:
        self.taken.append(action)
        if action == "raise":
            raise OSError("broken")
        self.place += action == "go right"
        seen = Observation(f"place {self.place}", ("go right", "wait"))
        won, late = self.place == 3, len(self.taken) == self.limit
        return Step(seen, self.reward * won, won, late and not won, {"success": won})

    def close(self) -> None:
        self.closed += 1


def said(switch: bool, subgoal: str = "end", action: str = "go right") -> Reply:
    return Reply(text=render_plan_execute(switch, subgoal, action))


def played(episode: PlanExecuteEpisode, *replies: Reply | str) -> list[Outcome]:
    """As the rollout plays: closed when it is over or raises."""
    going_on = False
    try:
        outcomes = [episode.begin()]
        for reply in replies:
            assert outcomes[-1].ask is not None, "the episode is over"
            outcomes.append(episode.act(Reply(text=reply) if isinstance(reply, str) else reply))
        going_on = outcomes[-1].ask is not None
    finally:
        if not going_on:
            episode.close()
    return outcomes


def facts(outcomes: list[Outcome], *names: str) -> list[Any]:
    found = [tuple(outcome.info[name] for name in names) for outcome in outcomes[1:]]
    return [one[0] for one in found] if len(names) == 1 else found


def prompt(outcome: Outcome) -> str:
    assert outcome.ask is not None and outcome.ask.restart and outcome.ask.party == "agent"
    (message,) = outcome.ask.messages
    return message.content


def test_the_subgoal_is_carried_and_the_first_turn_is_a_boundary() -> None:
    """hiper.md 2.3 and 2.4: KEEP in the first turn begins a segment with the subgoal written."""
    replies = [said(False, "a"), said(False, "a", "wait"), said(True, "b"), said(False, "b")]
    outcomes = played(PlanExecuteEpisode(Corridor()), *replies)
    assert facts(outcomes, "boundary", "subgoal") == [(True, "a"), (False, "a"), (True, "b"), (False, "b")]
    assert facts(outcomes, "switch") == [False, False, True, False]
    assert facts(outcomes, "keep_mismatch") == [False] * 4
    assert facts(outcomes, "observation") == ["place 0", "place 1", "place 1", "place 2"]
    assert [outcome.rewards for outcome in outcomes[1:]] == [{"agent": 0.0}] * 3 + [{"agent": 10.0}]
    assert outcomes[-1].terminated and outcomes[-1].stop_reason == "solved" and outcomes[-1].info["success"]


@pytest.mark.parametrize(
    ("reply", "fact"),
    [  # in the second turn, while "old" is current: (boundary, subgoal, valid, keep_mismatch, action)
        (said(True, "new"), (True, "new", True, False, "go right")),
        ("<switch>SWITCH</switch><subgoal>new</subgoal>", (True, "new", False, False, "")),
        ("<subgoal>new</subgoal><action>wait</action>", (False, "old", False, True, "wait")),
        (said(True, "new").text.replace("SWITCH", "what"), (False, "old", False, True, "go right")),
        (said(True, "new").text.replace("SWITCH", ""), (False, "old", False, True, "go right")),
        ("<switch>SWITCH</switch><action>wait</action>", (False, "old", False, False, "wait")),
        (said(True, "").text, (False, "old", False, False, "go right")),
        (said(False, "new"), (False, "old", True, True, "go right")),
        (said(False, "old"), (False, "old", True, False, "go right")),
        (f"so: {said(False, 'old').text} !", (False, "old", True, False, "go right")),
        (said(False, "old", "jump"), (False, "old", True, False, "jump")),
        ("", (False, "old", False, False, "")),
    ],
)
def test_no_malformed_turn_erases_the_subgoal_or_ends_the_episode(reply: Reply | str, fact: tuple[Any, ...]) -> None:
    """hiper.md 2.5, seen from the environment."""
    outcomes = played(PlanExecuteEpisode(Corridor()), said(True, "old", "wait"), reply)
    assert facts(outcomes, "boundary", "subgoal", "valid", "keep_mismatch", "action")[-1] == fact
    assert f"Your current subgoal: {fact[1]}\n" in prompt(outcomes[-1])


def test_trusting_the_text_is_the_authors_rule() -> None:
    """hiper.md 2.3: what a KEEP turn writes becomes current, without a boundary; nothing written erases nothing."""
    episode = PlanExecuteEpisode(Corridor(), on_keep_mismatch="trust_text")
    outcomes = played(episode, said(True, "a", "wait"), said(False, "b", "wait"), said(False, "b", "wait"), "")
    wanted = [(True, "a", False), (False, "b", True), (False, "b", False), (False, "b", False)]
    assert facts(outcomes, "boundary", "subgoal", "keep_mismatch") == wanted


def test_a_first_turn_without_a_subgoal() -> None:
    outcomes = played(PlanExecuteEpisode(Corridor()), "hello", said(False, "a", "wait"), said(True, "a", "wait"))
    wanted = [(True, "", False), (False, "", False), (True, "a", False)]
    assert facts(outcomes, "boundary", "subgoal", "keep_mismatch") == wanted


def test_the_state_alone() -> None:
    state = PlanExecuteState()
    assert state.step(parse_plan_execute(said(False, "a").text)) == (True, False)
    assert state.step(parse_plan_execute(said(False, "b").text)) == (False, True)
    assert state.subgoal == "a"


def test_inadmissible_actions_are_valid_unless_strict() -> None:
    world = Corridor()
    outcomes = played(PlanExecuteEpisode(world), said(True, "a", "jump"), said(False, "a", "Go  Right"))
    assert facts(outcomes, "admissible", "valid", "action") == [(False, True, "jump"), (True, True, "go right")]
    assert world.taken == ["jump", "go right"]
    strict = PlanExecuteEpisode(Corridor(), strict_actions=True)
    assert facts(played(strict, said(True, "a", "jump"), said(False, "a")), "valid") == [False, True]


def test_limits_are_truncations_and_the_world_is_closed() -> None:
    own, ours = Corridor(limit=2), Corridor()
    late = played(PlanExecuteEpisode(own), said(True), said(False))[-1]
    assert (late.truncated, late.terminated, late.stop_reason, own.closed) == (True, False, "time_limit", 1)
    cut = played(PlanExecuteEpisode(ours, max_turns=1), said(True))[-1]
    assert (cut.truncated, cut.terminated, cut.stop_reason, ours.closed) == (True, False, "max_turns", 1)


def test_a_task_solved_in_the_last_turn_is_terminated() -> None:
    last = played(PlanExecuteEpisode(Corridor(limit=3), max_turns=3), said(True), said(False), said(False))[-1]
    assert last.terminated and not last.truncated


def test_a_world_that_raises_is_closed_and_one_that_pays_nan_is_refused() -> None:
    world = Corridor()
    with pytest.raises(OSError, match="broken"):
        played(PlanExecuteEpisode(world), said(True, "a", "raise"))
    assert world.closed == 1
    with pytest.raises(WorldFailure, match="Corridor paid nan"):
        played(PlanExecuteEpisode(Corridor(reward=float("nan"))), said(True))


def test_the_full_prompt_has_all_parts_in_order() -> None:
    """hiper.md 2.2."""
    outcomes = played(PlanExecuteEpisode(Corridor()), *(said(True, f"plan {n}", "wait") for n in range(3)))
    first, later = prompt(outcomes[0]), prompt(outcomes[-1])
    assert "Your current subgoal: None" in first and "steps" not in first and "saw:" not in first
    order = ["reach the end", "A subgoal is", "taken 3 steps", "2. saw", "3. saw", "You now see: place 0"]
    order += ["Your current subgoal: plan 2", "- go right\n- wait", "<switch>KEEP or SWITCH", "word for word"]
    places = [later.index(part) for part in order]
    assert places == sorted(places)
    assert "1. saw" not in later and "plan 0" not in later and "plan 1" not in later


def test_the_flat_agent_reads_no_plan() -> None:
    episode = ActEpisode(Corridor())
    outcomes = played(episode, "<action>wait</action>", "go right")
    assert facts(outcomes, "action", "valid") == [("wait", True), ("", False)]
    assert "subgoal" not in prompt(outcomes[-1]) and "<action>" in prompt(outcomes[-1])


def test_short_prompts_and_what_is_left_out() -> None:
    view = WorldView(task="t", observation="o", admissible=("a", "b"), history=[("x", "y"), ("v", "w")], subgoal="s")
    short = WorldPrompts(style="short", history_length=1)
    assert short.render(view, plan=True) == "task t taken 2 saw v did w now o can a , b subgoal s"
    assert short.render(view, plan=False) == "task t taken 2 saw v did w now o can a , b"
    bare = WorldPrompts(style="short", history_length=0, list_actions=False)
    assert bare.render(view, plan=True) == "task t taken 2 now o subgoal s"
    first = WorldView(task="t", observation="o", subgoal="s")
    assert bare.render(first, plan=True) == "task t now o subgoal s"
    cut = WorldPrompts(style="short", max_chars=20)  # hiper.md 2.2: too long, so no history but the subgoal
    assert cut.render(view, plan=True) == "task t taken 2 now o can a , b subgoal s"


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("search[red mug]", "search[red mug]"),
        ("search [ red mug ]", "search[red mug]"),
        ("search[]", None),
        ("search[red", None),
        ("research[red]", None),
        ("LOOK", "look"),
        ("", None),
    ],
)
def test_open_actions(action: str, wanted: str | None) -> None:
    assert admitted(action, ("look", "search[...]")) == wanted


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="on_keep_mismatch is 'drop'"):
        PlanExecuteEpisode(Corridor(), on_keep_mismatch="drop")
    with pytest.raises(ValueError, match="max_turns is 0"):
        PlanExecuteEpisode(Corridor(), max_turns=0)
    with pytest.raises(ValueError, match="style is 'long'"):
        WorldPrompts(style="long")
    with pytest.raises(ValueError, match="history_length is -1"):
        WorldPrompts(history_length=-1)
    with pytest.raises(ValueError, match="max_chars is 0"):
        WorldPrompts(max_chars=0)
