"""English words that say nothing about a paper: the closed classes, as a fixed list with a version.

First-page bias depends on the list, so figures are comparable only under the same version.  A changed list gets a new
name; this one stays as it is.
"""

STOP_WORDS_VERSION = "english-1"

_ARTICLES = "a an the"
_PRONOUNS = """i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she
    her hers herself it its itself they them their theirs themselves one ones someone something anyone anything everyone
    everything nobody nothing each other another this that these those there here"""
_QUESTION_WORDS = "what when where whether which who whom whose why how"
_VERBS = """am is are was were be been being do does did doing done has have had having can cannot could may might must
    shall should will would ought"""
_CONJUNCTIONS = "and or nor but if then than as because although though while unless until since so yet whereas"
_PREPOSITIONS = """about above across after against along among around at before behind below beneath beside besides
    between beyond by despite down during except for from in inside into like near of off on onto out outside over
    per through throughout to toward towards under unlike up upon via with within without"""
_QUANTIFIERS = """all any both either neither every few fewer less least many more most much no none not only own same
    several some such"""
_ADVERBS = "again also always else even ever further just never now often once quite rather still thus too very"
_SHORT_FORMS = """aren't can't couldn't didn't doesn't don't hasn't haven't isn't it's let's shouldn't that's there's
    they're wasn't we're weren't what's won't wouldn't you're"""

STOP_WORDS = frozenset(
    " ".join(
        (
            _ARTICLES,
            _PRONOUNS,
            _QUESTION_WORDS,
            _VERBS,
            _CONJUNCTIONS,
            _PREPOSITIONS,
            _QUANTIFIERS,
            _ADVERBS,
            _SHORT_FORMS,
        )
    ).split()
)
