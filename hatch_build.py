"""Build hook: what MIM and MMEngine's ``hybrid_mm::...`` look for goes into ``hybrid_mm/.mim``.

In a checkout, and so in an editable installation, links stand there; a wheel gets copies. (Letting
the build follow the links drops either them or their targets from the source distribution.)
"""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MimResources(BuildHookInterface):
    """Adds configs, tools and the model index to a wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called by hatchling before a wheel of kind ``version`` is written."""
        if version == 'standard':
            for name in ('configs', 'tools', 'model-index.yml'):
                build_data['force_include'][name] = f'hybrid_mm/.mim/{name}'
