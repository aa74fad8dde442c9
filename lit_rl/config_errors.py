"""From what the argument parser says about a config to one sentence: which key, what is wrong, what would be right."""

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key was given."""

    path: tuple[str, ...]
    value: Any
    origin: str  # "" for the command line, else " (in FILE)"

    def __str__(self) -> str:
        return ".".join(self.path) + self.origin


def explain(message: str, args: Sequence[str], roots: Mapping[str, Any]) -> str:
    """One sentence for a parser's ``message`` about ``args``.

    Args:
        message: Of jsonargparse.
        args: The command line, without the subcommand.
        roots: Top-level key -> class whose arguments stand below it, for keys without a ``class_path``.
    """
    given = list(_given(args))
    for pattern, answer in _ANSWERS:
        if match := re.search(pattern, message, re.DOTALL):
            return answer(match, given, roots)
    return " ".join(message.split())


# -- the kinds of mistakes ---------------------------------------------------------------------------------------------


def _unknown_key(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    key = match["key"].removeprefix("--").partition("=")[0]
    path = tuple(key.split("."))
    place = next((p for p in given if p.path[-len(path) :] == path), _Place(path, None, ""))
    owner, accepted = _accepted(place.path[:-1], given, roots)
    name = place.path[-1]
    if not accepted:
        return f"{place} is not accepted here; lit-rl fit --help lists what is."
    return f"{place}: {owner} has no {name!r}.{_did_you_mean(name, accepted)} It takes {', '.join(sorted(accepted))}."


def _wrong_value(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    key, value = match["key"].split(".")[-1], match["value"].strip()
    alike = [p for p in given if p.path[-1] == key]
    place = next((p for p in alike if str(p.value) == value), alike[0] if alike else _Place((match["key"],), value, ""))
    return f"{place} is {value!r}; it must be {_readable(match['type'])}."


def _unknown_class(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    module, name = match["module"], match["name"]
    wanted = f"{module}.{name}"
    place = next((p for p in given if str(p.value).startswith(wanted)), _Place((wanted,), wanted, ""))
    if place.value != wanted:
        return f"{place} is {place.value!r}, but there is no module {wanted!r}; give the full name of a class."
    known = _public_classes(module)
    return f"{place}: {module} has no class {name!r}.{_did_you_mean(name, known)} It has {', '.join(sorted(known))}."


def _unknown_module(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    place = next((p for p in given if str(p.value).startswith(match["module"])), _Place(("class_path",), None, ""))
    return f"{place} is {place.value!r}, but there is no module {match['module']!r}; give the full name of a class."


def _short_name(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    name = match["name"]
    place = next((p for p in given if p.value == name), _Place((match["key"],), name, ""))
    known = _public_classes("lit_rl.methods" if place.path[0] == "model" else "lit_rl.datamodules")
    return f"{place}: no class is called {name!r}.{_did_you_mean(name, known)} Known are {', '.join(sorted(known))}."


def _missing(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    keys = [re.sub(r"^(fit|validate|test|predict)\.", "", key.strip()) for key in match["keys"].split(",")]
    return f"{' and '.join(keys)} must be given, in a YAML file (--config FILE.yaml) or as --{keys[0]}=..."


def _cause(match: re.Match[str], given: list[_Place], roots: Mapping[str, Any]) -> str:
    """What a constructor said: our own name the key themselves."""
    return " ".join(match["cause"].split())


_ANSWERS = (
    (r"following arguments are required: (?P<keys>[\w., ]+)", _missing),
    (r"Option '(?P<key>[^']+)' is not accepted", _unknown_key),
    (r"does not accept option '(?P<key>[^']+)'", _unknown_key),
    (r"unrecognized arguments: (?P<key>\S+)", _unknown_key),
    (r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'", _unknown_class),
    (r"No module named '(?P<module>[\w.]+)'", _unknown_module),
    (r'Parser key "(?P<key>[^"]+)".*Expected a dot import path string: (?P<name>\S+)', _short_name),
    (r'Parser key "(?P<key>[^"]+)":\s*Expected a (?P<type>.+?)\. Got value: (?P<value>[^\n]*)', _wrong_value),
    (r"Errors:\s*- (?P<cause>.+?)\n\s*- Expected a <class 'NoneType'>", _cause),
)


# -- what was given, and what is accepted ------------------------------------------------------------------------------


def _given(args: Sequence[str]) -> Iterator[_Place]:
    """Every key of the command line, then of the config files, with its value."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("-") and "=" in arg else [arg])]
    files = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-c", "--config"):
            files.append(following)
        elif word.startswith("--"):
            yield _Place(tuple(word[2:].split(".")), following, "")
    for file in files:
        try:
            loaded = yaml.safe_load(Path(file).read_text())
        except (OSError, yaml.YAMLError):
            continue  # the parser's own message says so
        yield from _walk(loaded, (), f" (in {file})")


def _walk(node: Any, path: tuple[str, ...], origin: str) -> Iterator[_Place]:
    if path:
        yield _Place(path, node, origin)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _walk(value, (*path, str(key)), origin)


def _accepted(path: tuple[str, ...], given: list[_Place], roots: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Who takes the keys below ``path``, and which; an empty set if that cannot be told."""
    if not path:
        return "the config", set(roots)
    owner = _class_at(path, given, roots)
    if owner is None:
        return "", set()
    return owner.__name__, set(_arguments(owner))


def _class_at(path: tuple[str, ...], given: list[_Place], roots: Mapping[str, Any]) -> type | None:
    """The class whose arguments stand below ``path``: named by a ``class_path``, or the type of the argument."""
    if path[-1] == "init_args":
        return _class_at(path[:-1], given, roots)
    named = next((p.value for p in given if p.path == (*path, "class_path")), None)
    if named is not None:
        module, _, name = str(named).rpartition(".")
        return getattr(importlib.import_module(module), name) if module else None
    if len(path) == 1:
        return roots.get(path[0])
    outer = _class_at(path[:-1], given, roots)
    return None if outer is None else _class_in(_arguments(outer).get(path[-1]))


def _class_in(annotation: Any) -> type | None:
    """The one class of ours or of others in ``X | None``."""
    for option in typing.get_args(annotation) or (annotation,):
        if inspect.isclass(option) and option.__module__ != "builtins":
            return option
    return None


def _arguments(owner: type) -> dict[str, Any]:
    """Argument name -> annotation, those that ``**kwargs`` hands on to a parent included."""
    found: dict[str, Any] = {}
    for cls in owner.__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = list(inspect.signature(vars(cls)["__init__"]).parameters.values())[1:]
        hints = typing.get_type_hints(vars(cls)["__init__"])
        for p in parameters:
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                found.setdefault(p.name, hints.get(p.name, p.annotation))
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return found


def _public_classes(module: str) -> set[str]:
    members = vars(importlib.import_module(module))
    public = {n: m for n, m in members.items() if n in members.get("__all__", (n,)) and n[0] != "_"}
    return {n for n, m in public.items() if inspect.isclass(m) and not issubclass(m, Exception)}


# -- words -------------------------------------------------------------------------------------------------------------


def _did_you_mean(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _readable(kind: str) -> str:
    """The parser's name of a type in words."""
    if literal := re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", kind):
        return f"one of {literal[1]}"
    if plain := re.fullmatch(r"<class '([\w.]+)'>", kind):
        return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}.get(
            plain[1], f"a {plain[1].rpartition('.')[2]}"
        )
    return kind
