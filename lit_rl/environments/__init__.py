"""Environments: the worlds in which parties talk and act; each decides whose turn it is and what is paid."""
