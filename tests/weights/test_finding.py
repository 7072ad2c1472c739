"""Where published weights are found, what is downloaded, and what is said of what is not there."""

import os
import threading

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from hybrid_mm.backbones import VAN
from hybrid_mm.checkpoint_files import MissingCheckpointError, load_from_local
from hybrid_mm.checkpoints import (
    CheckpointError,
    check_exists,
    check_weights,
    read_checkpoint,
)
from hybrid_mm.errors import UserError
from hybrid_mm.weights import WeightsError, load_by_name, weights_file

from .conftest import ARCH

SOURCE = 'somebody/net:README@0'


def put(path, content=b''):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(name):
    path, published = weights_file(name)
    return path.absolute(), published and published.source


def test_first_use_downloads(there, capsys):
    there.publish('a/{name}')
    for name in ('hashed_in1k', 'hybrid_mm://hashed_in1k', 'hashed_in1k'):
        path, published = weights_file(name)
        assert path == there.cache / there.name and path.read_bytes() == there.content
        assert published.layout == 'ours' and len(published.urls) == 2
    assert there.asked == [f'/a/{there.name}']


def test_next_address_and_next_file(there, capsys):
    there.publish('b/{name}')
    assert weights_file('hashed_in1k')[0] == there.cache / there.name
    assert there.asked == [f'/a/{there.name}', f'/b/{there.name}']
    (there.cache / there.name).unlink()
    there.publish('b/{name}').write_bytes(b'another file')
    there.publish('c/second.pth')
    path, published = weights_file('hashed_in1k')
    assert path.name == 'second.pth' and published.urls == (f'{there.base}/c/second.pth',)
    there.publish('a/{name}')  # which would be preferred, but it is there
    del there.asked[:]
    assert weights_file('hashed_in1k')[0] == path and not there.asked


def test_places_in_order(there, monkeypatch):
    """What a person put somewhere goes before what was downloaded."""
    there.publish('a/{name}')
    downloaded = found('hashed_in1k')[0]
    shared = there.folder / 'shared'
    monkeypatch.setenv('HYBRID_MM_WEIGHTS', os.pathsep.join(['', str(there.folder), str(shared)]))
    for path, content in (
        (shared / there.name, there.content),
        (there.folder / 'hashed_in1k.safetensors', b'any'),
        (there.here / 'checkpoints' / there.name, there.content),
        (there.here / 'checkpoints' / 'hashed_in1k.pth', b'any'),
    ):
        assert found('hashed_in1k')[0] != path
        put(path, content)
        assert found('hashed_in1k') == (
            path,
            None if content == b'any' else SOURCE,
        )
    path.write_bytes(there.content)  # the published file under our name is known by its hash
    assert found('hashed_in1k') == (path, SOURCE)
    assert downloaded.exists() and len(there.asked) == 1


def test_home_folder_in_the_variable(there, monkeypatch):
    monkeypatch.setenv('HOME', str(there.folder))
    monkeypatch.setenv('HYBRID_MM_WEIGHTS', '~/weights')
    path = put(there.folder / 'weights' / 'by-hand_in1k.pth')
    assert weights_file('by-hand_in1k') == (path, None)


def test_places_that_are_none(there, monkeypatch, capsys):
    """A home folder of nobody, a file as folder, a link to nothing; and no current folder."""
    put(there.here / 'file', b'any')
    folders = os.pathsep.join(['~nobody-here/x', 'file'])
    monkeypatch.setenv('HYBRID_MM_WEIGHTS', folders)
    put(there.here / 'checkpoints' / 'x', b'any')
    (there.here / 'checkpoints' / 'by-hand_in1k.pth').symlink_to('nowhere')
    with pytest.raises(WeightsError, match=r'by-hand_in1k\.pth is a link to nowhere, which is no'):
        weights_file('by-hand_in1k')
    told = capsys.readouterr().err
    assert 'names ~nobody-here/x, which is not a folder' in told
    assert 'names file, which is not a folder' in told
    with pytest.raises(MissingCheckpointError):
        load_from_local('~nobody-here/x.pth')
    (there.here / 'gone').mkdir()
    monkeypatch.chdir(there.here / 'gone')
    (there.here / 'gone').rmdir()
    with pytest.raises(WeightsError, match='put it into checkpoints or'):
        weights_file('by-hand_in1k')
    monkeypatch.chdir(there.here)


def test_another_file_under_a_published_name(there, capsys):
    """It is not taken; nor is one whose name says nothing, here or in torch's cache."""
    path = put(there.here / 'checkpoints' / 'van_hand.pth', b'another')
    with pytest.raises(WeightsError, match=r'van_hand\.pth is not the published file: its sha256'):
        weights_file('by-hand_in1k')
    assert not capsys.readouterr().err
    put(path, there.content)
    assert found('by-hand_in1k') == (path, SOURCE)
    put(there.here / 'checkpoints' / 'model.bin', there.content)
    put(there.cache / 'model.bin', there.content)
    with pytest.raises(WeightsError, match=r'model\.bin may belong to other.*: call it plain_in1k'):
        weights_file('plain_in1k')
    for letter, name in (('d', 'plain_in1k'), ('e', 'other_in1k')):
        there.publish(f'{letter}/model.bin')
        assert weights_file(name)[0].parent.parent == there.cache
        assert 'warning: checkpoints/model.bin may belong to other' in capsys.readouterr().err
    assert weights_file('plain_in1k')[0] != weights_file('other_in1k')[0]
    assert there.asked == ['/d/model.bin', '/d/model.bin', '/e/model.bin']


def test_what_torch_left_in_its_cache_is_compared(there):
    path = put(there.cache / there.name, there.content)
    assert weights_file('hashed_in1k')[0] == path and not there.asked
    put(path, there.content[:-1] + b'x')
    there.publish('a/{name}')
    assert weights_file('hashed_in1k')[0].read_bytes() == there.content
    assert len(there.asked) == 1


def test_web_page_and_half_file_are_not_weights(there):
    file = there.publish('d/model.bin')
    for content, text in (
        (b'<!doctype html><title>Sign in</title>', r"a web page \('Sign in'\)"),
        (there.content[:-40], 'truncated or damaged'),
    ):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=rf'no address gives the file\n.*{text}'):
            weights_file('plain_in1k')
    assert not [path for path in there.cache.rglob('*') if path.is_file()]


def test_a_downloaded_file_that_was_damaged_is_downloaded_again(there):
    file = there.publish('d/model.bin')
    load_by_name('hybrid_mm://plain_in1k')
    path = weights_file('plain_in1k')[0]
    path.write_bytes(there.content[:-40])
    file.rename(file.with_name('gone'))
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        load_by_name('hybrid_mm://plain_in1k')
    there.publish('d/model.bin')
    load_by_name('hybrid_mm://plain_in1k')
    assert path.read_bytes() == there.content


MESSAGES = {
    'hashed_in1k': (
        'cannot be downloaded: no address gives the file\n',
        '/a/{name}: HTTP 404 File not found\n',
        'c/second.pth: HTTP 404',
        'get {name} with a browser from {base}/a/{name}\n',
        'put it into {here}/checkpoints or a folder of HYBRID_MM_WEIGHTS, as {name} or '
        'hashed_in1k.pth\n',
    ),
    'by-hand_in1k': (
        'has to be downloaded by hand\n',
        'get van_hand.pth with a browser from https://drive.example.org/d/1 (click twice)\n',
        'HYBRID_MM_WEIGHTS, as van_hand.pth or by-hand_in1k.pth\n',
    ),
    'to-train_in1k': (
        'was never published (a/b:README lists none)\n',
        '`python tools/train.py configs/van/van_8xb1_in1k.py` trains it; ',
        '{here}/checkpoints/to-train_in1k.pth\n',
    ),
    'nowhere_in1k': (
        'was never published (a/b#3: "soon")\n  if you have such weights',
        '{here}/checkpoints/nowhere_in1k.pth\n',
    ),
}
SCRATCH = '--cfg-options model.backbone.init_cfg=None trains from scratch'


@pytest.mark.parametrize('name', MESSAGES)
def test_what_is_not_there(there, name):
    """One message, through every door."""
    address, texts = f'hybrid_mm://{name}', set()
    for door in (
        lambda: weights_file(name),
        lambda: read_checkpoint(address),
        lambda: check_exists(address),
        lambda: CheckpointLoader.load_checkpoint(address),
        lambda: load_checkpoint(VAN(ARCH), address),
        lambda: VAN(ARCH, init_cfg=dict(type='Pretrained', checkpoint=address)).init_weights(),
        lambda: VAN(ARCH).load_pretrained(address),
    ):
        with pytest.raises(WeightsError) as caught:
            door()
        texts.add(str(caught.value))
    (text,) = texts
    assert text.startswith(f'checkpoint {address} ') and text.endswith(SCRATCH)
    for part in MESSAGES[name]:
        assert part.format(name=there.name, here=there.here, base=there.base) in text


def test_offline(there, monkeypatch):
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')  # nobody listens
    with pytest.raises(
        WeightsError, match=r'no server can be reached; .* offline\? \(127\.0\.0\.1:\d+: Con'
    ):
        weights_file('hashed_in1k')
    with pytest.raises(
        WeightsError, match='`python -m hybrid_mm weights get hashed_in1k` downloads'
    ):
        weights_file('hashed_in1k', download=False)
    assert not there.asked


def test_whole_models_are_not_trained_from_scratch(there):
    with pytest.raises(WeightsError) as caught:
        weights_file('fcos_van_1x_coco')
    assert 'init_cfg' not in str(caught.value)


def test_a_cache_that_cannot_be_written(there):
    put(there.cache, b'in its place')
    with pytest.raises(WeightsError, match=r'cannot be kept: .*cannot be written.*TORCH_HOME'):
        weights_file('hashed_in1k')
    assert not there.asked


def test_names_and_schemes_that_are_not(there):
    for door in (weights_file, read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=r'no weights of this name; did you mean hashed_in1k'):
            door('hybrid_mm://hashd_in1k')
    for name in ('hybridmm://hashed_in1k', 's4://x'):
        with pytest.raises(CheckpointError, match='neither a file nor of a scheme'):
            read_checkpoint(name)


@pytest.mark.parametrize('name', ['hashed_in1k', 'by-hand_in1k'])
def test_loading(there, name, weights, monkeypatch):
    """Through MMEngine's loader as well; the file says what its training knew."""
    logged = []
    monkeypatch.setattr('hybrid_mm.weights.loading.print_log', lambda *args: logged.append(args))
    there.publish('a/{name}')
    path = there.cache / there.name
    if name == 'by-hand_in1k':
        path = put(there.here / 'checkpoints' / 'by-hand_in1k.pth', there.content)
    loaded = CheckpointLoader.load_checkpoint(f'hybrid_mm://{name}', 'cpu')
    assert set(loaded['state_dict']) == set(weights)
    assert (there.here / loaded['meta'].pop('file')) == path
    assert loaded['meta'] == dict(epoch=3, weights=name, source='ours')
    ((text, _),) = logged
    assert f'hybrid_mm://{name}: read from ' in text and f'{path.name}, published at http' in text
    net = VAN(ARCH, init_cfg=dict(type='Pretrained', checkpoint=f'hybrid_mm://{name}'))
    net.init_weights()
    assert all(torch.equal(v, weights[f'backbone.{k}']) for k, v in net.state_dict().items())


def test_a_file_of_another_network_under_the_name(there, monkeypatch):
    """It is named, and what it is, although it is converted by then."""
    logged = []
    monkeypatch.setattr('hybrid_mm.weights.loading.print_log', lambda *args: logged.append(args))
    names = 'patch_embed.proj.0.weight', 'levels.0.blocks.0.attn.qkv.weight'
    (there.here / 'checkpoints').mkdir()
    torch.save({name: torch.ones(1) for name in names}, 'checkpoints/to-train_in1k.pth')
    text = r'to-train_in1k \(checkpoints/to-train_in1k\.pth\) does not fit .* a checkpoint of NAT'
    with pytest.raises(ValueError, match=text):
        VAN(ARCH).load_pretrained('hybrid_mm://to-train_in1k')
    with pytest.raises(CheckpointError, match=r'(?s)not one of this model .* a checkpoint of NAT'):
        check_weights(VAN(ARCH), load_by_name('to-train_in1k'), 'x')
    assert logged[0][0].endswith('to-train_in1k.pth, your own file, layout nat')


def test_first_of_several_processes_downloads(there, fork, weights):
    """In a distributed run it is the first of a machine, whichever comes first."""
    there.publish('a/{name}')

    def first():
        threading.Event().wait(0.3)
        assert weights_file('hashed_in1k')[0].is_file()

    def second():
        loaded = load_by_name('hybrid_mm://hashed_in1k')
        assert set(loaded['state_dict']) == set(weights)

    codes = fork([first, second], seconds=20)
    assert codes == [0, 0], fork.text
    assert len(there.asked) == 1
    logs = [(there.folder / f'fork{i}.log').read_text() for i in range(2)]
    assert ['downloading' in log for log in logs] == [True, False]
