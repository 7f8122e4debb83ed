"""Figures that say how good a translated stream is, taken while it runs."""
