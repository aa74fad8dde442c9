"""Who plays the customer: a script that says the cue's own lines, or a model that is told what to say.

Any party can: a model of this machine or of an endpoint reads the meaning of its turn and words it; whatever it says,
the world's facts decide what the service's turns are worth.
"""

from lit_rl.service.world import CustomerCue

CUSTOMER_INSTRUCTION = (
    "You are a customer who talks with a shop. Each message shows what the shop said and then what you want to say. "
    "Say it in your own words, in one short sentence, and add nothing."
)


def scripted_customer(context: CustomerCue, key: int) -> str:
    """One of the cue's lines, chosen by the random key; for `lit_rl.parties.ScriptedParty`."""
    return context.lines[key % len(context.lines)]
