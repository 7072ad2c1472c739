"""The registry of published weights: ``published/<tree>.yml`` and ``preprocessing.yml``.

An entry of ``published/<tree>.yml``::

    - Name: van-b0_in1k               # weights of backbones; of a detector or segmenter: its config
      Files:                          # the same weights, best first
        - URL: [https://..., ...]     # addresses of one file; several if a checksum tells it
          Page: https://...           # where a person finds it
          File: van_tiny_754.pth.tar  # its name, if it is not the end of the address
          SHA256: 385941af            # whole or its beginning; or MD5
          Size: 16437504              # bytes
          Layout: van                 # one of hybrid_mm.convert.SOURCES, or `ours`
          Key: state_dict_ema         # where the weights are, if unwrap would take others
          Licence: Apache-2.0         # of the weights; if they have none, of their repository
          Source: open-mmlab/mmpretrain@ee7f2e88501f configs/van/metafile.yml
          Note: free text
        - Page: https://drive.google.com/...   # without URL: to be fetched by hand
          Layout: van
          Source: ...
      Metrics: {Top 1 Accuracy: 75.41}
      Trained by: van-b0_8xb128_in1k  # our config that trains such weights
    - Name: pelk-tiny_in1k
      Unpublished: evidence
      Trained by: ...

A further file is tried only if those before it cannot be had. Best are files of weights alone on a
server of the authors, then conversions by OpenMMLab and Hugging Face, training checkpoints and
shares of drives, copies of third parties, and last what has to be fetched by hand. Another training
of the same network is other weights: it has no place among them.

``Source`` is where the addresses were read, several with semicolons between:
``OWNER/REPOSITORY@COMMIT PATH``, ``PACKAGE==VERSION PATH``, or the page of a model on the hub of
Hugging Face.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from hybrid_mm.errors import UserError, nearest

SCHEME = 'hybrid_mm://'
OURS = 'ours'
FOLDER = Path(__file__).parent
# in the names of detectors and segmenters, which are those of their configs
_DENSE = ('coco', 'ade20k', 'cityscapes', 'voc')
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


@dataclass(frozen=True)
class PublishedFile:
    """A file in which weights are published.

    Attributes:
        name: Name of the file; empty if it is not known (of some that have to be fetched by hand).
        layout: Name of a source in ``hybrid_mm.convert.SOURCES``, or 'ours'.
        source: Where this was read: repository, commit and path.
        urls: Its addresses, best first; none if it has to be downloaded by hand.
        page: Page on which a person finds it.
        sha256: SHA-256 or its beginning, in hexadecimal digits, or empty.
        md5: The same of MD5.
        size: Bytes, or None.
        key: Key under which the weights are in the file, or None for the usual ones.
        licence: Licence of the weights, or empty.
        note: What a user should know.
    """

    name: str
    layout: str
    source: str
    urls: tuple[str, ...] = ()
    page: str = ''
    sha256: str = ''
    md5: str = ''
    size: int | None = None
    key: str | None = None
    licence: str = ''
    note: str = ''


@dataclass(frozen=True)
class Weights:
    """What is known of weights of one name.

    Attributes:
        name: The name behind ``hybrid_mm://``.
        tree: Folder of configs that they belong to.
        files: Where they are published, best first.
        metrics: Accuracies that their authors report, in percent.
        trained_by: Name of our config that trains such weights, or empty.
        unpublished: Evidence that they are not published, or empty.
    """

    name: str
    tree: str
    files: tuple[PublishedFile, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained_by: str = ''
    unpublished: str = ''

    @property
    def case(self) -> str:
        """'automatic', 'manual', 'ours to train' or 'unpublished'."""
        if any(file.urls for file in self.files):
            return 'automatic'
        if self.files:
            return 'manual'
        return 'ours to train' if self.trained_by else 'unpublished'

    @property
    def of_backbone(self) -> bool:
        """Whether they are those of a backbone or classifier, not of a detector or segmenter."""
        return not any(f'_{dataset}' in self.name for dataset in _DENSE)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Entry of ``preprocessing.yml``; empty if it has none."""
        entries = _preprocessing()
        fitting = (e for e in entries if any(fnmatchcase(self.name, p) for p in e['Weights']))
        return next(fitting, {})


# fields of the YAML files, and their names here
_FILE_FIELDS = {
    'URL': 'urls',
    'Page': 'page',
    'File': 'name',
    'SHA256': 'sha256',
    'MD5': 'md5',
    'Size': 'size',
    'Layout': 'layout',
    'Key': 'key',
    'Licence': 'licence',
    'Source': 'source',
    'Note': 'note',
}
_FIELDS = {
    'Name': 'name',
    'Files': 'files',
    'Metrics': 'metrics',
    'Trained by': 'trained_by',
    'Unpublished': 'unpublished',
}


def _file(entry: dict[str, Any]) -> PublishedFile:
    fields = {_FILE_FIELDS[key]: value for key, value in entry.items()}
    urls = fields.get('urls', ())
    fields['urls'] = (urls,) if isinstance(urls, str) else tuple(urls)
    if 'name' not in fields:
        address = fields['urls'][0] if fields['urls'] else ''
        fields['name'] = unquote(urlsplit(address).path.rpartition('/')[2])
    return PublishedFile(**fields)


def _weights(entry: dict[str, Any], tree: str) -> Weights:
    fields = {_FIELDS[key]: value for key, value in entry.items()}
    fields['files'] = tuple(map(_file, fields.get('files', ())))
    return Weights(tree=tree, **fields)


@functools.cache
def all_weights() -> Mapping[str, Weights]:
    """All weights of the registry by their names."""
    found = (
        _weights(entry, path.stem)
        for path in sorted((FOLDER / 'published').glob('*.yml'))
        for entry in yaml.load(path.read_text(), _LOADER)
    )
    return {weights.name: weights for weights in found}


@functools.cache
def _preprocessing() -> list[dict[str, Any]]:
    return yaml.load((FOLDER / 'preprocessing.yml').read_text(), _LOADER)


def find_weights(name: str) -> Weights:
    """Weights by name, with or without ``hybrid_mm://``.

    Args:
        name: The name.

    Raises:
        UserError: There are none of this name; the nearest ones are named.
    """
    name = name.removeprefix(SCHEME)
    if name not in all_weights():
        raise UserError(
            f'{SCHEME}{name}: there are no weights of this name'
            f'{nearest(name, all_weights())}; `python -m hybrid_mm weights list` prints all'
        )
    return all_weights()[name]
