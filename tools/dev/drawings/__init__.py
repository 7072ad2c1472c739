"""Drawings of the papers' operators, one function for each page in docs/papers."""
