"""Reporting: the episode log and the HTML report made from it."""
