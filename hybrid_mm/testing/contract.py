"""``check_backbone``: the contract of our backbones for a network of anybody."""

import logging
from collections.abc import Collection
from typing import Any

from hybrid_mm.testing.backbone_checks import CHECKS, SLOW
from hybrid_mm.testing.outcome import Report, run_checks
from hybrid_mm.testing.subject import Expected, Subject

BACKBONE_CHECKS = tuple(CHECKS)
"""Names of the checks of :func:`check_backbone`."""


def check_backbone(
    cls: type | str,
    /,
    *,
    only: str | Collection[str] = (),
    skip: str | Collection[str] = (),
    slow: bool = False,
    expected: Expected | None = None,
    **kwargs: Any,
) -> Report:
    """Check that a backbone keeps the contract of the backbones of this package.

    Any size of image from 32 up, odd ones too; mixed precision; gradients that are derivatives and
    reach all parameters; gradient checkpointing, freezing, choice of maps; saving and strict
    loading; layer-wise decay; copies; what compilers and exporters see. It works for any backbone
    that returns a tuple of maps (N, C, H, W): what a network has no argument for, and what only a
    ``BaseBackbone`` promises, is skipped with the reason. Choose a small network: all checks
    together then take a few seconds.

    Args:
        cls: The class, or its name in the registries, as ``'mmdet.ResNet'``.
        only: Checks to run, names of ``BACKBONE_CHECKS``; by default all.
        skip: Checks to leave out.
        slow: Whether to compile and to export the network as well.
        expected: What the network promises where the default is not meant.
        **kwargs: Arguments of its constructor.

    Returns:
        What was checked and what was skipped, with the reasons.

    Raises:
        ContractError: Checks fail; the text has a line for each, with what was expected and what
            was found.
        ValueError: A check has an unknown name.

    Example:
        >>> from hybrid_mm.backbones import VAN
        >>> from hybrid_mm.testing import check_backbone
        >>> small = dict(embed_dims=[8] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)
        >>> report = check_backbone(VAN, only=['any_size', 'autocast'], arch=small)
    """
    net = Subject(cls, kwargs, expected or Expected())
    slow_ones = {} if slow else dict.fromkeys(SLOW, 'takes long; slow=True runs it')
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # MMEngine logs what is loaded, and a line per parameter
    try:
        return run_checks(net.name, CHECKS, net, only, skip, slow_ones)
    finally:
        logging.disable(before)
