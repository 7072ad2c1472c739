"""The VAN-LSKA code; its modules are VAN's with another operator."""

from mappings.van import LAYOUT_NOTE, build, reference_layout

__all__ = ['LAYOUT_NOTE', 'build', 'reference_layout']
