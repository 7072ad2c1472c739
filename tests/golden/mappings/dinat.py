"""DiNAT: the mapping of NAT."""

from mappings.nat import build

__all__ = ['build']
