"""Hooks for training and evaluation."""
