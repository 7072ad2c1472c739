"""Weights that a config names by an address or by a name of MMEngine's."""

import hashlib
import io
import os

import pytest
import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.registry import MODELS

from hybrid_mm.checkpoint_files import CheckpointError, load_from_http
from hybrid_mm.checkpoints import read_checkpoint


@pytest.fixture(autouse=True)
def loaders(monkeypatch):
    for prefix in ('http://', 'https://'):  # others may have replaced them
        monkeypatch.setitem(CheckpointLoader._schemes, prefix, load_from_http)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / 'cache' / 'checkpoints'


def network(checkpoint):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    return MODELS.build(dict(type='mmpretrain.ConvNeXt', arch=arch, init_cfg=init_cfg))


def test_address(nobody):
    """Of a network of another library: which address, why, and what to do."""
    for load in (network(nobody).init_weights, lambda: read_checkpoint(nobody)):
        with pytest.raises(CheckpointError) as caught:
            load()
        text = str(caught.value)
        assert text.startswith(f'checkpoint {nobody} cannot be downloaded (')
        assert 'refused' in text and text.count(nobody) == 1
        assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in text


@pytest.mark.parametrize('scheme', ['open-mmlab', 'torchvision'])
def test_name(nobody, monkeypatch, scheme):
    for models in ('get_external_models', 'get_torchvision_models'):
        monkeypatch.setattr(mmengine_checkpoint, models, lambda: dict(net=nobody))
    with pytest.raises(CheckpointError, match=f'checkpoint {nobody} cannot be downloaded'):
        network(f'{scheme}://net').init_weights()


def test_a_file_in_place_of_an_address(tmp_path):
    path = str(tmp_path / 'net.pth')
    weights = {key: torch.ones_like(value) for key, value in network(path).state_dict().items()}
    torch.save(weights, path)
    net = network(path)
    net.init_weights()
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


class RunsCode:
    """Unpickled without care, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def weights(number):
    file = io.BytesIO()
    torch.save(dict(w=torch.tensor(number)), file)
    return file.getvalue()


def load(url, *args):
    return load_from_http(url, 'cpu', *args)['w'].item()


def kept(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


def test_local_address(tmp_path, cache):
    file = tmp_path / 'net.pth'
    file.write_bytes(weights(3))
    for _ in range(2):  # the second time from the cache
        assert load(file.as_uri()) == 3
    assert [path.name for path in kept(cache)] == ['net.pth']


def test_what_could_run_code_is_refused(tmp_path, cache):
    torch.save({'x': RunsCode(tmp_path / 'ran')}, tmp_path / 'evil.pth')
    for _ in range(2):
        with pytest.raises(CheckpointError, match='could run code'):
            load((tmp_path / 'evil.pth').as_uri())
    assert not (tmp_path / 'ran').exists()


def test_names_and_hashes(serve, tmp_path):
    """Neither the query of an address nor a word without a hash in it."""
    digest = hashlib.sha256(weights(4)).hexdigest()
    server = serve(weights(4))
    for name, plain in (
        (f'net-{digest[:8]}.pth', True),
        (f'net-{digest}.pth', True),
        ('net-swin-s.pth', False),
        (f'net-{digest[:7]}.pth', False),
    ):
        for _ in range(2):
            assert load(f'{server.base}/a/{name}?download=1', str(tmp_path / 'own')) == 4
        assert (tmp_path / 'own' / name).is_file() == plain
    assert len(server.asked) == 4
    with pytest.raises(CheckpointError, match='is not the file: its sha256 is'):
        load(f'{server.base}/net-01234567.pth')


def test_two_addresses_with_one_file_name(serve, cache):
    """Also where only the query differs; files that say what is in them stay where torch looks."""
    hashed = f'/x/net-{hashlib.sha256(weights(4)).hexdigest()[:8]}.pth'
    paths = ['/x/model.pth', '/y/model.pth', '/y/model.pth?id=2', hashed]
    server = serve({path: weights(i + 1) for i, path in enumerate(paths)})
    for _ in range(2):
        assert [load(server.base + path) for path in paths] == [1, 2, 3, 4]
    assert [path for path, _ in server.asked] == paths
    assert len(kept(cache)) == 4 and cache / hashed[3:] in kept(cache)


def test_what_is_no_checkpoint_is_not_kept(serve, cache):
    whole = weights(1)
    server = serve(
        {
            '/page.pth': b'  <!DOCTYPE html><title>Log in</title>',
            '/half.pth': whole[: len(whole) // 2],
            '/text.pth': b'none',
        },
    )
    for name, text in (
        ('page', r"it gives a web page \('Log in'\)"),
        ('half', r'is not the file: it \(\d+ bytes\) cannot be read: it is truncated'),
        ('text', "it cannot be read: it is text, which begins with 'none'"),
        ('gone', 'HTTP 404'),
    ):
        with pytest.raises(CheckpointError, match=text):
            load(f'{server.base}/{name}.pth')
    assert not kept(cache)
    server.content['/half.pth'] = whole
    assert load(f'{server.base}/half.pth') == 1


def test_an_address_that_cannot_be_reached(serve, nobody, cache, capsys):
    """What another program kept under its name is taken, and said so."""
    with pytest.raises(CheckpointError, match='refused'):
        load(nobody)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / 'net.pth').write_bytes(weights(5))
    assert load(nobody) == 5
    assert 'cannot be reached' in capsys.readouterr().err
    server = serve({'/net.pth': weights(6)})
    assert load(f'{server.base}/net.pth') == 6  # but not of one that can be
    with pytest.raises(CheckpointError, match='404'):
        load(f'{server.base}/none/net.pth')


def test_a_damaged_file_in_the_cache_is_downloaded_anew(serve, cache, nobody):
    whole = weights(7)
    server = serve(whole)
    hashed = f'{server.base}/net-{hashlib.sha256(whole).hexdigest()[:8]}.pth'
    for url in (server.url, hashed):
        assert load(url) == 7
        file = max(kept(cache), key=os.path.getmtime)
        file.write_bytes(whole[:-30])
        server.status = 404
        with pytest.raises(CheckpointError, match='damaged'):
            load(url)
        server.status = 200
        assert load(url) == 7 and file.read_bytes() == whole
    file.write_bytes(whole[:-30])
    with pytest.raises(CheckpointError, match=r'refused.*is there, but damaged'):
        load(nobody.replace('net.pth', file.name))


def test_a_cache_that_cannot_be_written(serve, cache):
    cache.parent.mkdir()
    cache.write_text('in the place of the folder')
    with pytest.raises(CheckpointError, match=r'cannot be written.*TORCH_HOME') as caught:
        load(serve(weights(1)).url)
    assert 'where there is a network' not in str(caught.value)
