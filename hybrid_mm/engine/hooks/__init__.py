"""Hooks of training and evaluation, one per file."""
