"""Registries find by themselves what they hold."""

import importlib
import pkgutil

import pytest

import hybrid_mm
from hybrid_mm import registry

FOLDERS = {name for _, name, folder in pkgutil.iter_modules(hybrid_mm.__path__) if folder} - {
    'analysis',
    'zoo',
    'apis',
}
REGISTRIES = [name for name in vars(registry) if name.isupper() and not name.startswith('_')]


@pytest.mark.parametrize('name', REGISTRIES)
def test_a_name_of_our_scope_imports_what_it_needs(name):
    """Whatever any folder registers stands in one that the registry imports on demand."""
    for folder in FOLDERS:
        importlib.import_module(f'hybrid_mm.{folder}')
    ours = getattr(registry, name)
    assert ours.scope == 'hybrid_mm'
    assert ours.parent is getattr(importlib.import_module('mmengine.registry'), name)
    assert ours.module_dict, 'nothing of ours'
    # layers are what backbones are made of
    imported = {*ours._locations, 'hybrid_mm.layers'}
    for cls in ours.module_dict.values():
        if cls.__module__ == 'hybrid_mm.analysis.study.peers':
            continue  # for the configs of the study alone, which imports it
        origin = '.'.join(cls.__module__.split('.')[:2])
        assert origin in imported, f'{cls.__module__}.{cls.__name__}: not in {sorted(imported)}'
