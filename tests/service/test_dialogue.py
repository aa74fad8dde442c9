"""Service dialogues driven by hand: who hears what, which constraints are asked for, and the facts of every turn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lit_rl.environments.base import Ask, Outcome, Reply
from lit_rl.metrics.engagement import Milestones
from lit_rl.service import (
    LABELS,
    CustomerCue,
    Procedure,
    ServiceDialogue,
    ServicePrompts,
    ServiceScenarios,
    ServiceStep,
    ServiceWorld,
    ShopGoal,
    SkillLabels,
    ToyShop,
)

SHORT = ServicePrompts(style="short")


class Talk:
    """Plays a dialogue as `lit_rl.rollout` would, with the customer's lines from its cues."""

    def __init__(self, dialogue: ServiceDialogue):
        self.dialogue, self.asks = dialogue, list[Ask]()
        self.outcome = self._next(dialogue.begin())

    def _next(self, outcome: Outcome) -> Outcome:
        while outcome.ask is not None:
            self.asks.append(outcome.ask)
            if outcome.ask.party != "customer":
                break
            outcome = self.dialogue.act(Reply(text=outcome.ask.context.lines[0]))
        return outcome

    def say(self, *texts: str, **options: Any) -> Mapping[str, Any]:
        """Answer whoever is asked, one text after another; the last text's info."""
        for text in texts:
            outcome = self.dialogue.act(Reply(text=text, **options))
            info, self.outcome = outcome.info, self._next(outcome)
        json.dumps(info)  # plain types
        return info

    def heard(self, party: str) -> list[list[str]]:
        """The messages of each turn of a party."""
        return [[message.content for message in ask.messages] for ask in self.asks if ask.party == party]

    def named(self, party: str) -> list[str | None]:
        return [ask.constraint for ask in self.asks if ask.party == party]


def shop(procedure: Procedure, goal: ShopGoal | None = None, **options: Any) -> Talk:
    options = {"labels": SkillLabels(LABELS), "prompts": SHORT} | options
    return Talk(ServiceDialogue(ToyShop(goal or ShopGoal(0, "price"), procedure), **options))


BEST = [
    ("<greet> <ask>", "hello"),
    ("<ask> <recommend> <coupon>", "what do you need"),
    ("<recommend>", "i recommend the kettle"),
    ("<coupon> <policy> <close>", "take 10 percent off"),
    ("<policy> <close>", "we have 7 day returns"),
    ("<close>", "i place your order"),
]


def test_a_whole_dialogue(procedure: Procedure) -> None:
    talk = shop(procedure)
    first = talk.dialogue.world.scenario
    assert first["goal"] == {"need": 0, "item": "kettle", "objection": "price"}
    infos = [talk.say(*turn) for turn in BEST]
    assert talk.outcome.ask is None and talk.outcome.stop_reason == "ordered" and talk.outcome.terminated
    assert [info["skill"] for info in infos] == [
        "greet", "ask_need", "recommend", "offer_coupon", "answer_policy", "close",
    ]  # fmt: skip
    assert [info["engagement"] for info in infos] == [0.5, 0.6, 0.8, 1.0, 0.3, 1.0]
    assert [info["milestones"] for info in infos] == [[], ["need"], ["recommendation"], ["resolution"], [], ["order"]]
    assert [info["turn"] for info in infos] == [1, 2, 3, 4, 5, 6]
    assert [info["event"] for info in infos] == ["greeted", "need", "price", "affordable", "policy", None]
    assert infos[1]["chain"] == ["ask_need", "recommend", "offer_coupon"] and infos[1]["sop_state"] == "greet"
    assert infos[1]["relevance"] == {"ask_need": 3, "recommend": 2, "offer_coupon": 1}  # gopo.md section 11
    assert infos[2]["world"] == {"item": "kettle", "patience": 5} and infos[0]["world"]["item"] is None
    assert all(info["ok"] and info["effect"] and not info["broken_rules"] for info in infos)
    assert [info["success"] for info in infos] == [False] * 5 + [True] and infos[-1]["ended"] == "ordered"


def test_what_each_party_hears(procedure: Procedure) -> None:
    """A conversation of its own for each; no one's own words come back to it."""
    talk = shop(procedure)
    for turn in BEST[:3]:
        talk.say(*turn)
    assert talk.heard("planner") == [
        ["hi i want to buy"],
        ["hello\nthank you\n<greet>"],
        ["what do you need\nit is for tea\n<greet> <ask>"],
        ["i recommend the kettle\nit costs too much\n<greet> <ask> <recommend>"],
    ]
    assert talk.heard("responder") == [
        ["hi i want to buy\n<greet> say : hello"],
        ["thank you\n<ask> say : what do you need"],
        ["it is for tea\n<recommend> say : i recommend never : guarantee"],
    ]
    assert talk.heard("customer")[2] == ["what do you need\nit is for tea"]
    assert {ask.exchange for ask in talk.asks if ask.party == "planner"} == {0, 1, 2, 3}
    assert [m.party for ask in talk.asks for m in ask.messages if ask.party != "customer"] == ["customer"] * 7
    silent = shop(procedure, prompts=ServicePrompts(style="short", show_state=False))
    silent.say(*BEST[0])
    assert silent.heard("planner")[1] == ["hello\nthank you"]


def test_what_a_real_model_is_told(procedure: Procedure) -> None:
    letters = SkillLabels.letters(procedure.skills)
    talk = shop(procedure, prompts=None, labels=letters, chain_length=2)
    talk.say("AB", "hello")
    (briefing, line), again = talk.heard("planner")
    assert "A : greet\nB : ask need\n" in briefing and "labels of the next 2 skills" in briefing
    assert line == "Customer : hi i want to buy" and again == ["Shop : hello\nCustomer : thank you\nDone : A"]
    ((briefing, line),) = talk.heard("responder")
    assert briefing.startswith("You are the customer service.") and line.endswith("\nSkill : greet say : hello")
    (briefing, line), again = talk.heard("customer")
    assert briefing.startswith("You are a customer") and line == "You : hi i want to buy"
    assert again == ["Shop : hello\nYou : thank you"]
    assert [[m.role for m in ask.messages] for ask in talk.asks[:2]] == [["system", "user"]] * 2
    flat = shop(procedure, prompts=None, labels=letters, mode="flat")
    assert "E : handle trust ; say : real shop never : guarantee\n" in flat.heard("responder")[0][0]


@pytest.mark.parametrize(
    ("mode", "masks", "planner", "responder"),
    [
        ("two_level", "hard", ["skills:start", "skills:greet"], ["reply:greet"]),
        ("two_level", "skills", ["skills:start", "skills:greet"], [None]),
        ("two_level", "replies", ["skills:any", "skills:any"], ["reply:greet"]),
        ("two_level", "none", ["skills:any", "skills:any"], [None]),
        ("flat", "hard", [], ["flat:start", "flat:greet"]),
        ("flat", "none", [], ["flat:any", "flat:any"]),
    ],
)
def test_names_of_constraints(
    procedure: Procedure, mode: Any, masks: Any, planner: list[str], responder: list[str]
) -> None:
    talk = shop(procedure, mode=mode, masks=masks)
    talk.say(*(["<greet> hello"] if mode == "flat" else ["<greet>", "hello"]))
    assert talk.named("planner") == planner and talk.named("responder") == responder
    rooms = {ask.party: ask.max_tokens for ask in talk.asks}
    assert rooms["responder"] == (10 if mode == "flat" else 9) and rooms.get("planner", 4) == 4


def test_broken_rules_are_counted_and_done_all_the_same(procedure: Procedure) -> None:
    """Gopo.md section 12.1: an action that the mask would forbid."""
    talk = shop(procedure, masks="none")
    info = talk.say("<ask>", "what do you need")
    assert info["broken_rules"] == ["S1 greet first"] and info["effect"] and info["milestones"] == ["need"]
    info = talk.say("<close>", "your order")
    assert info["sop_state"] == "ask_need" and len(info["broken_rules"]) == 3 and not info["effect"]
    assert info["event"] == "not_ready" and info["world"]["patience"] == 8 - 1 - 2


def test_a_plan_that_is_none(procedure: Procedure) -> None:
    """No effect, engagement 0, and the responder is not asked; it hears the lines it missed."""
    talk = shop(procedure)
    info = talk.say("i would greet")
    assert info["skill"] is None and info["chain"] == [] and info["engagement"] == 0 and not info["ok"]
    assert info["turn"] == 1 and info["broken_rules"] == [] and info["sop_state"] == "start"
    assert talk.asks[-1].party == "planner" and talk.asks[-1].exchange == 1
    talk.say("<greet>", "hello")
    assert talk.heard("responder") == [["hi i want to buy\nwhat do you mean\n<greet> say : hello"]]
    flat = shop(procedure, mode="flat")
    info = flat.say("hello <greet>")
    assert info["skill"] is None and info["event"] == "unclear"
    assert flat.asks[-1].party == "responder"


def test_a_reply_that_breaks_its_constraint(procedure: Procedure) -> None:
    talk = shop(procedure, masks="none")
    info = talk.say("<greet>", "welcome")
    assert not info["ok"] and info["faults"] == ["missing: hello"] and not info["effect"] and info["engagement"] == 0
    assert info["world"]["patience"] == 6 and talk.dialogue.state == 0, "the greeting is not done"
    assert talk.heard("planner")[-1] == ["welcome\nwhat do you mean"]
    info = talk.say("<greet>", "hello hello", stop_reason="length")
    assert info["faults"] == ["too long"]


def test_the_responder_has_to_choose_the_item(procedure: Procedure) -> None:
    for reply, item, effect in (
        ("i recommend the kettle", "kettle", True),
        ("i recommend the lamp", "lamp", False),
        ("i recommend kettle or lamp", None, False),
        ("i recommend tea", None, False),
    ):
        talk = shop(procedure)
        info = talk.say(*BEST[0], *BEST[1], "<recommend>", reply)
        assert info["ok"] and info["world"]["item"] == item and info["effect"] is effect
        assert info["event"] == ("price" if effect else "wrong_item")


def test_flat_replies(procedure: Procedure) -> None:
    talk = shop(procedure, mode="flat")
    infos = [talk.say(f"{plan.split()[0]} {reply}") for plan, reply in BEST]
    assert talk.outcome.stop_reason == "ordered" and all(info["ok"] for info in infos)
    assert infos[1]["chain"] == ["ask_need"] and talk.heard("planner") == []
    assert talk.heard("responder")[:2] == [["hi i want to buy"], ["thank you\n<greet>"]]


def test_limits(procedure: Procedure) -> None:
    talk = shop(procedure, max_turns=2)
    talk.say(*BEST[0])
    info = talk.say(*BEST[1])
    assert talk.outcome.stop_reason == info["ended"] == "max_turns"
    assert talk.outcome.truncated and not talk.outcome.terminated
    impatient = shop(procedure, ShopGoal(0, "none", patience=2), max_turns=2)
    impatient.say(*BEST[0])
    impatient.say(*BEST[1])
    assert impatient.outcome.stop_reason == "left" and impatient.outcome.terminated


def test_a_customer_without_words_is_heard_all_the_same(procedure: Procedure) -> None:
    dialogue = ServiceDialogue(ToyShop(ShopGoal(0), procedure), labels=SkillLabels(LABELS), prompts=SHORT)
    dialogue.begin()
    outcome = dialogue.act(Reply(text="  "))
    assert outcome.ask is not None and outcome.ask.messages[0].content == "hi i want to buy"
    assert set(outcome.info) == {"scenario", "milestone_weights", "expert_turns", "event"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "three_level"}, "mode is 'three_level'"),
        ({"masks": "soft"}, "masks is 'soft'"),
        ({"mode": "flat", "masks": "skills"}, "'hard' or 'none'"),
        ({"chain_length": 0}, "chain_length is 0"),
        ({"max_turns": 0}, "max_turns is 0"),
        ({"labels": SkillLabels({"greet": "A"})}, "the procedure's skills are"),
    ],
)
def test_what_is_refused(procedure: Procedure, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        shop(procedure, **options)
    with pytest.raises(ValueError, match="style is 'long'"):
        ServicePrompts(style="long")


# -- another world -----------------------------------------------------------------------------------------------------


class RecordedBooking:
    """A dialogue of a data set: the customer's lines are fixed, a turn is right if it is the skill annotated."""

    def __init__(self, lines: Sequence[str], skills: Sequence[str]):
        self.lines, self.skills, self.turn = lines, skills, 0
        self.procedure = Procedure(
            id="booking",
            skills=["request", "book", "bye"],
            safe_skill="bye",
            goal_skill="book",
            rules=[{"type": "precede", "first": "request", "then": "book"}],
        )
        self.milestones = Milestones(weights={"booking": 1.0}, expert_turns={"booking": 2})
        self.scenario = {"goal": {"area": "north"}, "seed": 0}
        self.opening = CustomerCue(event="recorded", lines=(lines[0],))

    def relevance(self) -> Mapping[str, int]:
        return {self.skills[self.turn]: 3}

    def reference(self, skill: str) -> str | None:
        return None

    def step(self, skill: str | None, reply: str, ok: bool) -> ServiceStep:
        right = ok and skill == self.skills[self.turn]
        self.turn += 1
        over = self.turn == len(self.skills)
        return ServiceStep(
            engagement=float(right),
            effect=right,
            milestones=("booking",) if right and skill == "book" else (),
            ended="over" if over else None,
            success=over and right,
            cue=None if over else CustomerCue(event="recorded", lines=(self.lines[self.turn],)),
        )


def test_another_world_stands_behind_the_same_dialogue() -> None:
    world = RecordedBooking(["a table please", "in the north"], ["request", "book"])
    assert isinstance(world, ServiceWorld)
    talk = Talk(ServiceDialogue(world, labels=SkillLabels.letters(world.procedure.skills)))
    assert talk.say("A", "which area")["effect"]
    info = talk.say("B", "it is booked")
    assert info["milestones"] == ["booking"] and talk.outcome.stop_reason == "over" and info["success"]
    assert talk.heard("planner")[1] == ["Shop : which area\nCustomer : in the north\nDone : A"]


def test_steps_and_cues_are_checked() -> None:
    cue = CustomerCue(event="e", lines=("yes",))
    for options, sentence in (
        ({"engagement": 1.5, "cue": cue}, "engagement is 1.5"),
        ({"engagement": 1.0}, "needs a cue"),
        ({"engagement": 1.0, "cue": cue, "ended": "over"}, "needs a cue"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ServiceStep(effect=True, **options)
    with pytest.raises(ValueError, match="at least one, none blank"):
        CustomerCue(event="e", lines=("yes", " "))


def test_scenarios_are_balanced_and_the_same_for_every_run() -> None:
    source = ServiceScenarios(30, seed=3)
    goals = [source.goal(i) for i in range(len(source))]
    assert len(set(goals[:12])) == 12 == len(set(goals[12:24])) and goals[:12] != goals[12:24]
    worlds = [ServiceScenarios(30, seed=3)[i] for i in range(30)]
    assert goals == [world.goal for world in worlds if isinstance(world, ToyShop)]
    assert goals != [ServiceScenarios(30, seed=4).goal(i) for i in range(30)]
    assert source[0] is not source[0] and source[7].scenario["seed"] == 7
    for index in (-1, 30):
        with pytest.raises(IndexError):
            source[index]
    only = ServiceScenarios(5, objections=["price"], patience=3)
    assert {only.goal(i).objection for i in range(5)} == {"price"} and only[0].scenario["persona"] == {"patience": 3}


def test_scenarios_under_other_rules(tmp_path: Any) -> None:
    file = tmp_path / "lax.yaml"
    skills = ", ".join(LABELS)
    file.write_text(f"id: lax\nskills: [{skills}]\nsafe_skill: handoff\ngoal_skill: close\n")
    assert ServiceScenarios(1, procedure=str(file))[0].procedure.id == "lax"
    file.write_text("id: lax\nskills: [a, b]\nsafe_skill: a\ngoal_skill: b\n")
    with pytest.raises(ValueError, match=r"lax.yaml is about \['a', 'b'\]"):
        ServiceScenarios(1, procedure=str(file))
    for options, sentence in (
        ({"size": 0}, "size is 0"),
        ({"objections": []}, "objections is"),
        ({"objections": ["x"]}, "objection one of"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ServiceScenarios(**options)
