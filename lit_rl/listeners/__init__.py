"""Listeners that continue somebody's reasoning, and pools of them."""

from lit_rl.listeners.base import Continuation, Listener, ListenRequest
from lit_rl.listeners.pool import ListenerPool
from lit_rl.listeners.remote import PartyListener
from lit_rl.listeners.sampled import LISTENING, LocalListener, PolicyListener, SampledListener
from lit_rl.listeners.scripted import ScriptedListener

__all__ = [
    "LISTENING",
    "Continuation",
    "ListenRequest",
    "Listener",
    "ListenerPool",
    "LocalListener",
    "PartyListener",
    "PolicyListener",
    "SampledListener",
    "ScriptedListener",
]
