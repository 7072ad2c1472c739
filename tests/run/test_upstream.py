"""Scripts of the libraries, run with our configs."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from hybrid_mm.errors import UserError
from hybrid_mm.run import upstream


def test_classes_of_the_config_for_scripts_of_a_library(tmp_path, monkeypatch):
    """METAINFO of the class has the names of the config, but only while the script runs."""
    cls = DATASETS.get('mmseg.CityscapesDataset')
    before = cls.METAINFO
    seen = tmp_path / 'seen.txt'
    tools = tmp_path / 'mmseg' / '.mim' / 'tools'
    tools.mkdir(parents=True)
    (tools / 'script.py').write_text(
        'import sys\nfrom mmengine.registry import DATASETS\n'
        'meta = DATASETS.get("mmseg.CityscapesDataset").METAINFO\n'
        f'open({str(seen)!r}, "w").write(repr((sys.argv[1:], meta["classes"])))\n'
    )
    spec = SimpleNamespace(origin=str(tmp_path / 'mmseg' / '__init__.py'))
    monkeypatch.setattr(upstream.importlib.util, 'find_spec', lambda name: spec)
    dataset = dict(type='CityscapesDataset', metainfo=dict(classes=('mine', 'yours')))
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
    upstream.run_upstream(cfg, dict(mmseg='script.py'), ['a', '--b'])
    assert seen.read_text() == repr((['a', '--b'], ['mine', 'yours']))
    assert cls.METAINFO is before
    with pytest.raises(UserError, match='installed without its tools'):
        upstream.run_upstream(cfg, dict(mmseg='other.py'), [])
