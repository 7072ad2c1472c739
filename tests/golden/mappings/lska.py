"""The VAN-LSKA code; its modules are VAN's with another operator."""

from mappings.van import build

__all__ = ['build']
