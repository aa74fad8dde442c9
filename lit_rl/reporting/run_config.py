"""What a run's config says: the facts worth a line each, and the whole of it without its secrets."""

import re
from typing import Any

import yaml

HIDDEN = "(left out)"
MAX_CHARACTERS = 100_000
_SECRET_KEY = re.compile(
    r"api[-_]?key|secret|passw(or)?d|passphrase|credential|authorization|cookie|private[-_]?key|access[-_]?key"
    r"|(^|[-_])(auth|bearer|hf|access|api|hub|wandb)[-_]?token$|^token$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_|xox[abp]-|AKIA)[\w-]{12,}|(?<=://)[^/\s@]+(?=@)")


def public_text(config: dict[str, Any]) -> str:
    """The config as YAML for everybody's eyes: values that are or may be secrets are replaced.

    Longer than ``MAX_CHARACTERS`` it is cut off, and says so.
    """
    text = yaml.safe_dump(without_secrets(config), sort_keys=False, default_flow_style=None, width=110)
    if len(text) > MAX_CHARACTERS:
        return (
            text[:MAX_CHARACTERS] + f"\n… cut off here; config.yaml has {len(text) - MAX_CHARACTERS:,} more characters"
        )
    return text


def without_secrets(node: Any) -> Any:
    """A copy in which secrets are ``HIDDEN``, known by the name of their key or by how they look."""
    if isinstance(node, dict):
        return {
            key: HIDDEN if _SECRET_KEY.search(str(key)) and value else without_secrets(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [without_secrets(value) for value in node]
    return _SECRET_VALUE.sub(HIDDEN, node) if isinstance(node, str) else node


def dig(config: Any, *path: str) -> Any:
    """The value at ``path``, looking into ``init_args`` on the way; None if there is none."""
    node = config
    for name in path:
        if not isinstance(node, dict):
            return None
        inner = node.get("init_args")
        node = inner[name] if name not in node and isinstance(inner, dict) and name in inner else node.get(name)
    return node


def class_name(node: Any) -> str:
    """The class a node of the config names, without its modules; "" if it names none."""
    path = node.get("class_path") if isinstance(node, dict) else node
    return path.rsplit(".", 1)[-1] if isinstance(path, str) else ""


def title(config: dict[str, Any], otherwise: str) -> str:
    """The run in a few words: its method and its tasks."""
    method, tasks = class_name(dig(config, "model")), _tasks(dig(config, "data", "tasks"))
    return f"{method} on {tasks}" if method and tasks else method or otherwise


def _tasks(node: Any) -> str:
    """What a task source is called: the class, and of which task it is where it has several; once what it mixes."""
    sources = dig(node, "sources")
    if isinstance(sources, list):
        return " + ".join(dict.fromkeys(filter(None, map(_tasks, sources)))) or class_name(node)
    task = dig(node, "task")
    return task if isinstance(task, str) else class_name(node)


def expected_batches(config: dict[str, Any]) -> int | None:
    """How many training batches the run was to have; None if the config does not settle it."""
    epochs, per_epoch = dig(config, "trainer", "max_epochs"), dig(config, "data", "batches_per_epoch")
    known = isinstance(epochs, int) and isinstance(per_epoch, int) and epochs > 0
    total = epochs * per_epoch if known else None
    steps = dig(config, "trainer", "max_steps")
    if isinstance(steps, int) and steps >= 0:
        each = [dig(config, "model", name) or 1 for name in ("steps_per_batch", "epochs_per_batch")]
        by_steps = -(-steps // (each[0] * each[1])) if all(isinstance(count, int) for count in each) else None
        total = by_steps if total is None or by_steps is None else min(total, by_steps)
    return total


def facts(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What the config says about the run, as (name, value); what it does not say is left out."""
    public = without_secrets(config)
    found = [
        ("Method", class_name(dig(public, "model"))),
        ("Model", _model(dig(public, "model", "policy"))),
        ("Trained", _trained(dig(public, "model", "policy"))),
        ("Tasks", _called(dig(public, "data", "tasks") or dig(public, "data", "demonstrations"))),
        ("Teacher", _called(dig(public, "data", "teacher"))),
        ("Batch", _batch(public)),
        ("Discount per turn", dig(public, "model", "gamma")),
        ("Learning rate", _learning_rate(dig(public, "model"))),
        ("Optimizer", _called(dig(public, "model", "optimizer"))),
        ("Hardware", " · ".join(str(value) for value in _hardware(public))),
        ("Seed", dig(public, "seed_everything")),
    ]
    return [(name, _shown(value)) for name, value in found if value not in (None, "")]


def _model(policy: Any) -> str:
    tiny = dig(policy, "tiny")
    if tiny:
        layers, width = dig(tiny, "layers") or 2, dig(tiny, "hidden_size") or 64
        return f"Qwen2 of {layers} layers, {width} wide, from random weights"
    return str(dig(policy, "path") or "")


def _trained(policy: Any) -> str:
    if not policy:
        return ""
    adapters = dig(policy, "adapters")
    if not isinstance(adapters, dict):
        return "all weights"
    return f"{'QLoRA' if dig(policy, 'quantization') else 'LoRA'} adapters: {', '.join(map(str, adapters))}"


def _learning_rate(model: Any) -> Any:
    """An optimizer that is named brings its own."""
    rate = dig(model, "optimizer", "lr")
    return dig(model, "learning_rate") if rate is None else rate


def _called(node: Any) -> str:
    """A class with its short arguments, as a call."""
    name, arguments = class_name(node), node.get("init_args") if isinstance(node, dict) else None
    if not isinstance(arguments, dict):
        return name
    short = [f"{k}={_shown(v)}" for k, v in arguments.items() if isinstance(v, bool | int | float | str)]
    return f"{name}({', '.join(short)})" if short and len(", ".join(short)) < 80 else name


def _batch(config: dict[str, Any]) -> str:
    tasks, group = dig(config, "data", "tasks_per_batch"), dig(config, "data", "group_size")
    turns = dig(config, "data", "dialogue", "max_turns")
    text = f"{tasks} problems × {group} dialogues" if tasks and group else ""
    return f"{text}, at most {turns} turns" if text and turns else text


def _hardware(config: dict[str, Any]) -> list[Any]:
    nodes = dig(config, "trainer", "num_nodes")
    values = [dig(config, "trainer", name) for name in ("accelerator", "precision")]
    strategy = dig(config, "trainer", "strategy")
    values.append(strategy if isinstance(strategy, str) and strategy != "auto" else class_name(strategy))
    values.append(f"{nodes} nodes" if isinstance(nodes, int) and nodes > 1 else None)
    return [value for value in values if value not in (None, "", "auto")]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
