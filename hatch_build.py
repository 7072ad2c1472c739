"""What hatchling is told about the wheel in Python; the rest is in pyproject.toml.

MIM looks for the model index in ``hybrid_mm/.mim``. In a checkout, and so in an editable
installation, a link stands there; a wheel gets a copy.

The pages and pictures that README.md refers to are not on the package index: in the long
description, a link to one is its text.
"""

import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = r'\[((?:`[^`]*`|[^\[\]`])*)\]\((?!https?:)[^()\s]*\)'


def without_local_links(text: str) -> str:
    """Markdown without local pictures, and with the texts of local links instead of the links."""
    return re.sub(_LINK, r'\1', re.sub('!' + _LINK, '', text))


class Readme(MetadataHookInterface):
    """Makes the long description from README.md."""

    def update(self, metadata: dict) -> None:
        """Called by hatchling with the table ``project`` of pyproject.toml."""
        text = (Path(self.root) / 'README.md').read_text(encoding='utf-8')
        metadata['readme'] = {'content-type': 'text/markdown', 'text': without_local_links(text)}


class ModelIndex(BuildHookInterface):
    """Adds the model index to a wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called by hatchling before a wheel of kind ``version`` is written."""
        if version == 'standard':
            build_data['force_include']['model-index.yml'] = 'hybrid_mm/.mim/model-index.yml'
