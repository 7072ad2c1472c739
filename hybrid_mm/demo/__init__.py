"""Figures of the demo."""
