"""The study: every system trained on one recipe from scratch, on one core (docs/study.md)."""
