"""Verification: finding the answer in a text and checking it."""
