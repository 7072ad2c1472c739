"""A small registry whose files lie on a web server on this machine."""

import functools
import hashlib
import http.server
import threading
from types import SimpleNamespace

import pytest
import torch
import yaml

from hybrid_mm.backbones import VAN
from hybrid_mm.checkpoint_files import download
from hybrid_mm.weights import finding, registry

ARCH = dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], mlp_ratios=[2] * 4)


@pytest.fixture
def server(tmp_path):
    """Files of a folder by HTTP, and the paths that were asked for."""
    folder, asked = tmp_path / 'server', []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        base = f'http://127.0.0.1:{web.server_port}'
        yield SimpleNamespace(folder=folder, asked=asked, base=base)
        web.shutdown()


@pytest.fixture(scope='session')
def weights():
    """Weights of a small VAN, all of them ones, with a classifier."""
    state = {f'backbone.{k}': torch.ones_like(v) for k, v in VAN(ARCH).state_dict().items()}
    return state | {'head.fc.weight': torch.zeros(5, 16), 'head.fc.bias': torch.zeros(5)}


@pytest.fixture
def there(tmp_path, monkeypatch, server, weights):
    """A machine with an empty cache in a folder of its own, and some published weights.

    'hashed' has two files, the first of which has two addresses; 'plain' and 'other' are published
    under one name, without a hash; 'by-hand', 'to-train' and 'nowhere' are what they say.
    """
    torch.save(dict(state_dict=weights, meta=dict(epoch=3)), server.folder / 'file')
    content = (server.folder / 'file').read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = f'van-{digest}.pth'
    base, source = server.base, dict(Layout='ours', Source='somebody/net:README@0')
    hand = dict(Page='https://drive.example.org/d/1', File='van_hand.pth', Note='click twice')
    entries = [
        dict(
            Name='hashed_in1k',
            Files=[
                dict(URL=[f'{base}/a/{name}', f'{base}/b/{name}'], SHA256=digest, **source),
                dict(URL=f'{base}/c/second.pth', **source),
                dict(Page='https://example.org/page', **source),
            ],
        ),
        dict(Name='plain_in1k', Files=[dict(URL=f'{base}/d/model.bin', **source)]),
        dict(Name='other_in1k', Files=[dict(URL=f'{base}/e/model.bin', **source)]),
        dict(Name='by-hand_in1k', Files=[hand | source | dict(SHA256=digest)]),
        dict(
            Name='to-train_in1k',
            Unpublished='a/b:README lists none',
            **{'Trained by': 'van_8xb1_in1k'},
        ),
        dict(Name='nowhere_in1k', Unpublished='a/b#3: "soon"'),
        dict(Name='fcos_van_1x_coco', Files=[hand | source]),
    ]
    (tmp_path / 'registry' / 'published').mkdir(parents=True)
    (tmp_path / 'registry' / 'published' / 'van.yml').write_text(yaml.safe_dump(entries))
    caches = (registry.all_weights, finding._ambiguous)
    with monkeypatch.context() as patch:
        patch.setattr(registry, 'FOLDER', tmp_path / 'registry')
        patch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
        patch.setattr(download, 'PAUSES', ())
        patch.delenv('HYBRID_MM_WEIGHTS', raising=False)
        for proxy in ('http_proxy', 'all_proxy'):
            patch.delenv(proxy, raising=False)
            patch.delenv(proxy.upper(), raising=False)
        (tmp_path / 'here').mkdir()
        patch.chdir(tmp_path / 'here')
        for cache in caches:
            cache.cache_clear()

        def publish(path):
            file = server.folder / path.format(name=name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            return file

        yield SimpleNamespace(
            content=content,
            name=name,
            publish=publish,
            asked=server.asked,
            base=base,
            here=tmp_path / 'here',
            cache=tmp_path / 'cache' / 'checkpoints',
            folder=tmp_path,
        )
    for cache in caches:
        cache.cache_clear()
