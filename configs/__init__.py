"""Configs: the YAML files of the repository, shipped as ``lit_rl.configs``."""
