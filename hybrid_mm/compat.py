"""Workarounds for known breakages of the OpenMMLab stack."""


def apply() -> None:
    """Apply every workaround that needs no user."""
