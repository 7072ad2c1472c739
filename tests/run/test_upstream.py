"""Scripts of the libraries, run with our configs."""

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
        'cls = DATASETS.get("mmseg.CityscapesDataset")\n'
        'names = cls._load_metainfo(dict(classes=["a", "b"]))["classes"]\n'
        f'open({str(seen)!r}, "w").write(repr((sys.argv[1:], cls.METAINFO["classes"], names)))\n'
    )
    monkeypatch.setattr(upstream, 'package_configs', lambda name: tools.parent / 'configs')
    dataset = dict(type='CityscapesDataset', metainfo=dict(classes=('mine', 'yours')))
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
    upstream.run_upstream(cfg, dict(mmseg='script.py'), ['a', '--b'])
    # a script of MMDetection adds a tuple to the names
    assert seen.read_text() == repr((['a', '--b'], ['mine', 'yours'], ('a', 'b')))
    assert cls.METAINFO is before and '_load_metainfo' not in vars(cls)
    with pytest.raises(UserError, match='installed without its tools'):
        upstream.run_upstream(cfg, dict(mmseg='other.py'), [])
