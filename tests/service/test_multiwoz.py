"""MultiWOZ's layout, on two dialogues written here: skills, milestones, the booking rule, Inform and Success."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_rl.metrics.service import ServiceScoring, ServiceSummary
from lit_rl.service.annotated_files import read_annotated, write_annotated
from lit_rl.service.multiwoz import SKILLS, SOP_ID, MultiWOZ, read_database, skills_of
from lit_rl.service.multiwoz_goals import Act

Json = dict[str, Any]
NONE = [["none", "none"]]


def heard(text: str) -> Json:
    return {"text": text, "metadata": {}, "dialog_act": {}}


def said(text: str, acts: Json, **states: Json) -> Json:
    """States by domain: ``semi`` and ``book`` slots in one, those of bookings after ``book_``."""
    metadata: Json = {}
    for domain in ("hotel", "train", "restaurant"):
        slots = states.get(domain, {})
        book = {name.removeprefix("book_"): value for name, value in slots.items() if name.startswith("book_")}
        semi = {name: value for name, value in slots.items() if not name.startswith("book_")}
        metadata[domain] = {"semi": {"area": "", "leaveAt": "not mentioned"} | semi, "book": {"booked": []} | book}
    return {"text": text, "metadata": metadata, "dialog_act": acts}


def hotel_and_train() -> Json:
    """A hotel that is booked by the rule, and a train whose time is only told."""
    wanted, booking = {"area": "north", "stars": "4"}, {"book_people": "2", "book_day": "friday"}
    goal = {
        "hotel": {
            "info": {"area": "north", "stars": "4"},
            "reqt": ["postcode"],
            "book": {"people": "2", "day": "friday", "stay": "3", "invalid": False},
            "fail_info": {},
        },
        "train": {"info": {"leaveAt": "09:00", "destination": "Ely"}, "reqt": ["price"]},
        "taxi": {},
        "message": ["You want a hotel."],
    }
    log = [
        heard("a hotel in the north"),
        said("how many stars ?", {"Hotel-Inform": [["Choice", "5"]], "Hotel-Request": [["Stars", "?"]]},
             hotel={"area": "north"}),
        heard("four"),
        said("The Lodge is nice .", {"Hotel-Recommend": [["Name", "The Lodge"]], "Booking-Inform": NONE}, hotel=wanted),
        heard("book it for two from friday"),
        said("how many nights ?", {"Booking-Request": [["Stay", "?"]]}, hotel=wanted | booking),
        heard("three . and the postcode ?"),
        said("booked , the postcode is cb1 .",
             {"general-reqmore": NONE, "Hotel-Inform": [["Post", "cb1"]], "Booking-Book": [["Ref", "AB12"]]},
             hotel=wanted | booking | {"book_booked": [{"name": "the lodge", "reference": "AB12"}]}),
        heard("a train to Ely after nine"),
        said("TR1 leaves at 09:30 for 5 pounds .",
             {"Train-Inform": [["Id", "TR1"], ["Leave", "09:30"], ["Ticket", "5 pounds"], ["Time", "20 minutes"]]},
             hotel=wanted, train={"leaveAt": "09:00", "destination": "ely"}),
        heard("thank you"),
        said("goodbye", {"general-welcome": NONE, "general-bye": NONE}),
    ]  # fmt: skip
    return {"goal": goal, "log": log}


def hasty_booking() -> Json:
    """A table that is booked without a word about the day, and of the wrong price; no request is answered."""
    goal = {"restaurant": {"info": {"pricerange": "cheap"}, "reqt": ["phone"], "book": {"people": "2"}}}
    log = [
        heard("a cheap table for two at noon"),
        said("Posh has one , booked .", {"Restaurant-Inform": [["Name", "Posh"]], "Booking-Book": [["Ref", "CD34"]]},
             restaurant={"pricerange": "cheap", "book_people": "2", "book_time": "12:00"}),
    ]  # fmt: skip
    return {"goal": goal, "log": log}


def stored(folder: Path, **dialogues: Json) -> Path:
    file = folder / "data.json"
    file.write_text(json.dumps(dialogues or {"A.json": hotel_and_train(), "B.json": hasty_booking()}), encoding="utf-8")
    return file


def with_database(folder: Path, stars: str = "4", leave: str = "09:30") -> Path:
    entities = {
        "hotel": [{"name": "The Lodge", "area": "north", "stars": stars}],
        "train": [{"trainID": "TR1", "leaveAt": leave, "destination": "ely"}],
        "restaurant": [{"name": "Posh", "pricerange": "expensive"}],
        "attraction": [],
    }
    for domain, found in entities.items():
        (folder / f"{domain}_db.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


def test_acts_become_skills(tmp_path: Path) -> None:
    dialogues = MultiWOZ(stored(tmp_path))
    assert len(dialogues) == 2
    service = [turn for turn in dialogues[0].turns if turn.role == "service"]
    assert [turn.chain for turn in service] == [
        ("request", "inform"),
        ("offer_book", "recommend"),
        ("request",),
        ("book", "inform", "reqmore"),
        ("inform",),
        ("bye",),
    ]
    assert service[3].relevance == {"book": 3, "inform": 2, "reqmore": 1} and service[3].skill == "book"
    assert dialogues[0].turns[0].text == "a hotel in the north" and service[0].text == "how many stars ?"
    assert {skill for turn in service for skill in turn.chain or ()} <= set(SKILLS)


def test_milestones(tmp_path: Path) -> None:
    first, second = (MultiWOZ(stored(tmp_path))[i] for i in range(2))
    assert [turn.milestones for turn in first.turns if turn.role == "service"] == [
        (),
        ("hotel.told", "hotel.offer"),
        (),
        ("hotel.booked", "hotel.answered"),
        ("train.told", "train.offer", "train.answered"),
        (),
    ]
    assert first.milestones is not None and second.milestones is not None
    assert first.milestones.weights["train.offer"] == pytest.approx(1 / 7)
    assert first.milestones.expert_turns == {
        "hotel.told": 2, "hotel.offer": 2, "hotel.booked": 4, "hotel.answered": 4,
        "train.told": 5, "train.offer": 5, "train.answered": 5,
    }  # fmt: skip
    assert second.milestones.expert_turns["restaurant.answered"] == 1  # never: the last turn
    assert "restaurant.answered" not in second.turns[1].milestones and "restaurant.booked" in second.turns[1].milestones
    assert first.ordered and second.ordered


def test_every_mandatory_slot_before_a_booking(tmp_path: Path) -> None:
    first, second = (MultiWOZ(stored(tmp_path))[i] for i in range(2))
    assert not any(turn.broken_rules for turn in first.turns)  # people and day were told, the stay was asked for
    assert second.turns[1].broken_rules == ("restaurant: day before book",)
    assert second.sop_id == SOP_ID
    states = [turn.sop_state for turn in first.turns if turn.role == "service"]
    assert states == ["start", "hotel:", "hotel:people+day", "hotel:people+day", "hotel:", "train:"]


def test_a_slot_that_is_asked_for_in_the_same_turn_is_too_late(tmp_path: Path) -> None:
    late = hasty_booking()
    late["log"][1]["dialog_act"]["Booking-Request"] = [["Day", "?"]]
    early = copy.deepcopy(late)
    del early["log"][1]["dialog_act"]["Booking-Book"]
    early["log"] += hasty_booking()["log"]
    assert MultiWOZ(stored(tmp_path, A=late))[0].turns[1].broken_rules == ("restaurant: day before book",)
    assert not any(turn.broken_rules for turn in MultiWOZ(stored(tmp_path, A=early))[0].turns)


def test_inform_and_success(tmp_path: Path) -> None:
    file = stored(tmp_path)
    plain = MultiWOZ(file)
    assert [plain.inform_success(i) for i in range(2)] == [(True, True), (True, False)]
    right = MultiWOZ(file, database=with_database(tmp_path))
    assert [right.inform_success(i) for i in range(2)] == [(True, True), (False, False)]
    assert MultiWOZ(file, database=with_database(tmp_path, stars="3")).inform_success(0) == (False, False)
    assert MultiWOZ(file, database=with_database(tmp_path, leave="08:30")).inform_success(0) == (False, False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["log"][7]["dialog_act"].pop("Hotel-Inform"), (True, False)),  # no postcode
        (lambda d: d["log"][9]["dialog_act"].update({"Train-Inform": [["Ticket", "5"]]}), (False, False)),  # no train
        (lambda d: d["log"][9]["dialog_act"].update({"Train-Request": d["log"][9]["dialog_act"].pop("Train-Inform")}),
         (False, False)),
        (lambda d: d["log"][9].update(dialog_act={"Train-Inform": [["Id", "TR1"]], "Train-Request": [["Ticket", "5"]]}),
         (True, False)),  # who asks about a price does not tell it
        (lambda d: d["goal"]["hotel"]["info"].update({"parking": "yes"}), (True, True)),  # without a database
        (lambda d: (d["log"][7]["dialog_act"].pop("Booking-Book"), d["log"][7]["metadata"].clear()), (True, False)),
        (lambda d: d["log"][7]["dialog_act"].pop("Booking-Book"), (True, True)),  # the state has the booking
        (lambda d: d["log"][7]["metadata"].clear(), (True, True)),  # the act has it
    ],
)  # fmt: skip
def test_success_needs_each_part(tmp_path: Path, change: Callable[[Json], object], expected: tuple[bool, bool]) -> None:
    dialogue = hotel_and_train()
    change(dialogue)
    assert MultiWOZ(stored(tmp_path, A=dialogue)).inform_success(0) == expected


def test_constraints_that_do_not_matter_and_latest_arrivals(tmp_path: Path) -> None:
    dialogue = hotel_and_train()
    dialogue["goal"]["hotel"]["info"]["stars"] = "dontcare"
    dialogue["goal"]["train"]["info"] = {"arriveBy": "10:00"}
    file = stored(tmp_path, A=dialogue)
    folder = with_database(tmp_path, stars="1")
    assert MultiWOZ(file, database=folder).inform_success(0) == (False, False)  # the train says no arrival
    for arrive, expected in (("09:50", True), ("10:10", False)):
        trains = [{"trainID": "TR1", "arriveBy": arrive}]
        (folder / "train_db.json").write_text(json.dumps(trains), encoding="utf-8")
        assert MultiWOZ(file, database=folder).inform_success(0) == (expected, expected)


def test_the_last_offer_counts(tmp_path: Path) -> None:
    dialogue, folder = hotel_and_train(), with_database(tmp_path)
    dialogue["log"][1]["dialog_act"]["Hotel-Inform"] = [["Name", "The Inn"]]
    assert MultiWOZ(stored(tmp_path, A=dialogue), database=folder).inform_success(0) == (True, True)
    dialogue["log"][5]["dialog_act"]["Hotel-Select"] = [["Name", "The Inn"]]
    assert MultiWOZ(stored(tmp_path, A=dialogue), database=folder).inform_success(0) == (False, False)


def test_records_score_like_any_other(tmp_path: Path) -> None:
    dialogues = MultiWOZ(stored(tmp_path))
    write_annotated(tmp_path / "records.jsonl", [dialogues[i] for i in range(2)])
    records = read_annotated(tmp_path / "records.jsonl", skills=SKILLS)
    assert records == [dialogues[i] for i in range(2)]
    summary = ServiceSummary(SKILLS, ServiceScoring(engagement_weight=0.0))
    summary.update([record.served() for record in records])
    found = {name: value.item() for name, value in summary.compute().items()}
    # all of the first; of the second's four milestones three, none of which count where the rule is broken
    assert [found["tse"], found["tse_compliant"]] == pytest.approx([(1 + 0.75) / 2, 0.5])
    assert [found["esndcg"], found["dialogues_with_violation"]] == pytest.approx([1.0, 0.5])


def test_acts_in_a_file_of_their_own_as_in_2_0(tmp_path: Path) -> None:
    whole = MultiWOZ(stored(tmp_path, **{"A.json": hotel_and_train()}))[0]
    stripped = hotel_and_train()
    acts = {str(n): stripped["log"][2 * n - 1].pop("dialog_act") for n in range(1, 7)}
    file = stored(tmp_path, **{"A.json": stripped})
    (tmp_path / "acts.json").write_text(json.dumps({"A": acts}), encoding="utf-8")
    assert MultiWOZ(file, acts=tmp_path / "acts.json")[0] == whole
    (tmp_path / "acts.json").write_text(json.dumps({"A": acts | {"1": "No Annotation"}}), encoding="utf-8")
    first = MultiWOZ(file, acts=tmp_path / "acts.json")[0].turns[1]
    assert (first.skill, first.chain, first.relevance) == (None, None, None)


def test_a_list_of_ids_takes_a_part(tmp_path: Path) -> None:
    file = stored(tmp_path)
    (tmp_path / "testListFile.json").write_text("B.json\n", encoding="utf-8")
    part = MultiWOZ(file, ids=tmp_path / "testListFile.json")
    assert len(part) == 1 and part[0].dialogue_id == "B.json"
    (tmp_path / "testListFile.json").write_text("C.json\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"testListFile.json: 'C.json' is not in .*data.json"):
        MultiWOZ(file, ids=tmp_path / "testListFile.json")


def test_skills_of_no_act() -> None:
    assert skills_of([]) == ()
    assert skills_of([Act(domain="general", intent="welcome", slot="none", value="none")]) == ("bye",)


def broken(change: Callable[[Json], object]) -> Json:
    dialogue = hotel_and_train()
    change(dialogue)
    return dialogue


@pytest.mark.parametrize(
    ("dialogue", "message"),
    [
        ([], r"data.json, A: it is \[\]; wanted an object with names, as MultiWOZ 2.1 has it"),
        (broken(lambda d: d.pop("goal")), r"data.json, A, goal: it is None"),
        (broken(lambda d: d.update(goal={"message": ["a"]})), r"data.json, A: the goal has none of the domains"),
        (broken(lambda d: d.update(log=[])), r"data.json, A: 'log' is \[\]; wanted turns of customer and service"),
        (broken(lambda d: d["log"][2].pop("text")), r"data.json, A, turn 2: there is no 'text' in it"),
        (broken(lambda d: d["log"][1].pop("dialog_act")), r"data.json, A, turn 1, dialog_act: it is None"),
        (broken(lambda d: d["log"][1].pop("metadata")), r"data.json, A, turn 1, metadata: it is None"),
        (broken(lambda d: d["log"][3].update(dialog_act={"Hotel-Dance": NONE})),
         r"data.json, A, turn 3: the act 'Hotel-Dance' is none we know; intents are \['book'"),
    ],
)  # fmt: skip
def test_errors_name_file_dialogue_and_turn(tmp_path: Path, dialogue: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiWOZ(stored(tmp_path, A=dialogue))


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file .*none.json; give one of a MultiWOZ 2.x download"):
        MultiWOZ(tmp_path / "none.json")
    (tmp_path / "data.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data.json is not JSON"):
        MultiWOZ(tmp_path / "data.json")
    (tmp_path / "data.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data.json has no dialogues"):
        MultiWOZ(tmp_path / "data.json")
    with pytest.raises(ValueError, match=r"There is no file .*ids.txt; give one with an id per line"):
        MultiWOZ(stored(tmp_path), ids=tmp_path / "ids.txt")
    with_database(tmp_path)
    (tmp_path / "hotel_db.json").write_text('[{"area": "north"}]', encoding="utf-8")
    with pytest.raises(ValueError, match=r"hotel_db.json: an entity has no 'name'"):
        read_database(tmp_path)
    with pytest.raises(ValueError, match=r"acts.json, A: it is None"):
        (tmp_path / "acts.json").write_text("{}", encoding="utf-8")
        MultiWOZ(stored(tmp_path, **{"A.json": hotel_and_train()}), acts=tmp_path / "acts.json")
