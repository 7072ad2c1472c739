"""Settings of Sphinx; `python tools/dev/build_docs.py` builds the site."""

project = 'hybrid_mm'
author = copyright = 'the authors of hybrid_mm'
html_title = 'hybrid_mm'
extensions = ['myst_parser']
source_suffix = {'.md': 'markdown'}
root_doc = 'index'
myst_heading_anchors = 4
html_theme = 'furo'  # asks no other server for fonts or scripts
html_copy_source = False
html_show_sphinx = False
pygments_style = 'friendly'
pygments_dark_style = 'monokai'
