"""The contract of backbones and operators, for tests of your own; needs no pytest."""

from hybrid_mm.testing.contract import BACKBONE_CHECKS, check_backbone
from hybrid_mm.testing.operators import OPERATOR_CHECKS, check_operator
from hybrid_mm.testing.outcome import ContractError, Report, Result
from hybrid_mm.testing.subject import Expected

__all__ = [
    'BACKBONE_CHECKS',
    'OPERATOR_CHECKS',
    'ContractError',
    'Expected',
    'Report',
    'Result',
    'check_backbone',
    'check_operator',
]
