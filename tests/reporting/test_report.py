import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lit_rl.episodes import Episode, Rollouts
from lit_rl.reporting.episode_log import MAGIC, batch_record
from lit_rl.reporting.report import embedded, percent, write_report
from tests.reporting.made_up_run import WordLevel, make_run
from tests.reporting.test_dialogues import spoken, told

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & ' \" \u2028 \ud800"


class Page(HTMLParser):
    """Tags, their attributes, the text of each script, and all other words with one space between them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += f" {' '.join(data.split())}" if data.strip() else ""

    def data(self, name: str) -> Any:
        place = [attributes.get("id") for tag, attributes in self.tags if tag == "script"].index(f"{name}-data")
        return json.loads(self.scripts[place])


@pytest.fixture
def page(run_folder: Path) -> Page:
    return Page(write_report(run_folder))


def test_the_page_is_alone_in_the_world(page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", page.source)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action"} & set(attributes)


def test_numbers_are_those_of_the_files(run_folder: Path, page: Page) -> None:
    validation = json.loads((run_folder / "validation.json").read_text())
    before = json.loads((run_folder / "validation_before.json").read_text())
    teacher, first = validation["conditions"]["teacher"]["accuracy"], before["conditions"]["teacher"]["accuracy"]
    text = page.text
    assert f"{percent(first[-1])} before training → {percent(teacher[-1])} after training" in text
    for name, condition in validation["conditions"].items():
        if name != "teacher_greedy":
            cells = " ".join(percent(share, trim=False) for share in condition["accuracy"])
            assert cells in text, name
    compared = page.data("comparison")
    assert [row["accuracy"] for row in compared["Sampled"]] == [
        first, *(validation["conditions"][name]["accuracy"] for name in ("teacher", "retry", "shuffled", "resample"))
    ]  # fmt: skip
    assert compared["ceiling"] == validation["ceiling"]
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    drawn = {panel["key"]: panel for panel in page.data("curves")["panels"]}
    losses = [line["train/loss"] for line in lines if line["stage"] == "train"]
    assert drawn["train/loss"]["y"] == pytest.approx(losses, rel=1e-5)


def test_intervals_need_the_number_of_dialogues(run_folder: Path, page: Page) -> None:
    assert "95% interval" in page.text
    validation = {"conditions": {"teacher": {"accuracy": [0.25, 0.5]}}, "ceiling": [0.5, 1.0], "policy_version": 60}
    (run_folder / "validation.json").write_text(json.dumps(validation))
    text = Page(write_report(run_folder)).text
    assert "interval" not in text and "teacher, after training with its teacher 25.0% 50.0% +25.0 ceiling" in text


def test_facts_and_state_are_told(page: Page) -> None:
    for words in ("SocialMetaLearning on NumberSearch", "HigherLower", "all 60 batches", "tokens sampled"):
        assert words in page.text
    assert "sk-very-secret" not in page.source and "teacher_api_key: (left out)" in page.text


def test_dialogues_are_there_with_their_tokens(page: Page) -> None:
    data = page.data("dialogues")
    assert [view["label"] for view in data["views"]] == ["train", "teacher"]
    batches = data["views"][0]["batches"]
    assert (batches[0]["batch"], batches[-1]["batch"]) == (0, 59)
    turn = batches[0]["dialogues"][0]["turns"][0]
    assert len(turn["tokens"]) == len(turn["log_probs"]) == 3 and turn["heard"] == "find n in 0 14"


def hostile_log(path: Path) -> None:
    class Hostile(WordLevel):
        def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
            return HOSTILE * len(ids)

    turns = [spoken("student", 0, "ans 7", "find n", info={"kind": HOSTILE, "answer": HOSTILE, "correct": False}),
             told(HOSTILE, 0, HOSTILE)]  # fmt: skip
    episode = Episode(index=0, task_id=HOSTILE, group=0, seed=0, turns=turns, stop_reason=HOSTILE)
    batch = Rollouts.from_episodes([episode], trained=["student"], parties=["student", HOSTILE], label=HOSTILE)
    path.write_bytes(
        MAGIC + batch_record(batch, batch_number=0, step=0, sample_size=1, tokenizer=Hostile(), label=HOSTILE)
    )


def test_hostile_words_stay_words(run_folder: Path, page: Page) -> None:
    clean = [tag for tag, _ in page.tags if tag in ("script", "img")]
    hostile_log(run_folder / "episodes.bin")
    conditions = {HOSTILE: {"accuracy": [0.1, 0.2]}, "teacher": {"accuracy": [0.3, 0.4]}}
    (run_folder / "validation.json").write_text(json.dumps({"conditions": conditions, "ceiling": None}))
    config = {"model": {"class_path": HOSTILE, "init_args": {"policy": {"path": HOSTILE}}}}
    (run_folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    with open(run_folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 61, "batch": 61, "stage": "train", HOSTILE: 1.0}) + "\n")
    spoiled = Page(write_report(run_folder))
    assert [tag for tag, _ in spoiled.tags if tag in ("script", "img")] == clean
    assert not [name for _, attributes in spoiled.tags for name in attributes if name.startswith("on")]
    (view,) = spoiled.data("dialogues")["views"]
    (dialogue,) = view["batches"][0]["dialogues"]
    assert dialogue["task"] == HOSTILE and dialogue["turns"][1]["text"] == HOSTILE
    assert HOSTILE in "".join(dialogue["turns"][0]["tokens"])
    assert any(panel["key"] == HOSTILE for panel in spoiled.data("curves")["panels"])


def test_embedded_json_has_no_sign_that_html_reads() -> None:
    text = embedded({"a": HOSTILE})
    assert not set(text) & set("<>&'") and json.loads(text) == {"a": HOSTILE}
    with pytest.raises(ValueError):
        embedded([float("nan")])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7])
def test_a_run_that_goes_on_or_was_killed(run_folder: Path, share: float) -> None:
    for name in ("validation.json", "validation_before.json"):
        (run_folder / name).unlink()
    for name in ("metrics.jsonl", "timings.jsonl", "episodes.bin"):
        data = (run_folder / name).read_bytes()
        (run_folder / name).write_bytes(data[: int(len(data) * share)])
    text = Page(write_report(run_folder)).text
    assert "Not validated yet" in text
    if share > 0.1:
        assert "of 60 batches: still training, or stopped early" in text


@pytest.mark.parametrize("left", ["metrics.jsonl", "episodes.bin", "validation.json"])
def test_one_file_is_enough(run_folder: Path, left: str) -> None:
    for file in run_folder.iterdir():
        if file.name != left:
            file.unlink()
    text = Page(write_report(run_folder)).text
    missing = {"metrics.jsonl": "There is no metrics.jsonl", "episodes.bin": "There is no episodes.bin"}
    for name, said in missing.items():
        assert (said in text) == (name != left)


def test_writing_again_replaces_the_page(run_folder: Path) -> None:
    first = write_report(run_folder)
    assert first == run_folder / "report.html"
    before = first.read_bytes()
    write_report(run_folder)
    assert first.read_bytes() == before
    assert [path.name for path in run_folder.iterdir() if path.name.startswith("report")] == ["report.html"]


def test_a_long_run_makes_a_small_page_in_seconds(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "long", batches=1000, episodes=8)
    command = (
        "import sys, time; start = time.perf_counter();"
        "from lit_rl.reporting.report import write_report; write_report(sys.argv[1]);"
        "print(time.perf_counter() - start, [m for m in ('torch', 'lightning', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command, str(folder)], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.split(maxsplit=1)
    assert float(seconds) < 10 and heavy.strip() == "[]"
    assert (folder / "report.html").stat().st_size < 5e6


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, to run the page's script")
def test_the_script_draws_everything(run_folder: Path, tmp_path: Path) -> None:
    hostile = Page(write_report(run_folder))
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
         "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom",
         (run_folder / "report.html").as_uri() + "#view=0&left=1&right=31&colour=probability"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr  # errors of scripts are logged there
    drawn = done.stdout
    assert drawn.count("<svg ") >= 3 + len(hostile.data("curves")["panels"])
    assert "Batch 1<" in drawn and "Batch 31<" in drawn and 'class="token' in drawn
    assert "NaN" not in drawn and "undefined" not in re.sub(r"<script.*?</script>", "", drawn, flags=re.DOTALL)
