"""Worlds to act in: text in, text out."""

from lit_rl.worlds.alfworld_games import AlfworldGames
from lit_rl.worlds.base import Advice, AdvisedWorld, Observation, Step, World, WorldFailure, WorldSource
from lit_rl.worlds.gymnasium_text import GymnasiumText
from lit_rl.worlds.household import Household
from lit_rl.worlds.limits import TimeLimited
from lit_rl.worlds.textworld_games import TextWorldGames
from lit_rl.worlds.web_shop import WebShop

__all__ = [
    "Advice",
    "AdvisedWorld",
    "AlfworldGames",
    "GymnasiumText",
    "Household",
    "Observation",
    "Step",
    "TextWorldGames",
    "TimeLimited",
    "WebShop",
    "World",
    "WorldFailure",
    "WorldSource",
]
