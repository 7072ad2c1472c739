"""Settings of Sphinx; `python tools/dev/build_docs.py` builds the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = 'hybrid_mm'
author = copyright = 'the authors of hybrid_mm'
html_title = 'hybrid_mm'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'reference']
source_suffix = {'.md': 'markdown'}
root_doc = 'index'
myst_heading_anchors = 4
html_theme = 'furo'  # asks no other server for fonts or scripts
html_copy_source = False
html_show_sphinx = False
pygments_style = 'friendly'
pygments_dark_style = 'monokai'

# the API reference: what a class itself documents, not what nn.Module or a dict has
autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True  # as they are written
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = True
nitpick_ignore_regex = [
    ('py:.*', r'(?!hybrid_mm\.).*'),  # there are no pages of other packages
    ('py:.*', r'hybrid_mm\..*\.[A-Z]'),  # type variables
    ('py:class', r'hybrid_mm\.backbones\..*(Arch|Arguments)'),  # listed with their networks
]
