"""Callbacks: imported as ``lit_rl.callbacks``, each useful alone in any Lightning project."""
