"""Notebooks run, recorded, judged and reported without a screen."""
