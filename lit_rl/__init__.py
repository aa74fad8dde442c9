"""lit-rl: reinforcement learning of language models with other parties, on PyTorch Lightning.

Import by full name (``from lit_rl.policy import Policy``): nothing heavy is loaded here, so ``lit-rl --help`` is quick.
"""

__version__ = "0.1.0"
