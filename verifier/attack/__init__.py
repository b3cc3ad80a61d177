"""Falsifiers: they look for a violation before and during the proof."""
