"""Parties behind an endpoint that speaks OpenAI's chat protocol: hosted models and servers of one's own."""

from lit_rl.remote.party import RemoteParty
from lit_rl.remote.settings import RemoteSettings

__all__ = ["RemoteParty", "RemoteSettings"]
