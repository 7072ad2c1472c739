"""Attention modules for the ``plugins=`` argument of ResNets."""
