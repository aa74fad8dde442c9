"""DataModules: imported as ``lit_rl.datamodules``, for online rollouts and for demonstrations."""
