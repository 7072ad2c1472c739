"""Which files are inputs, and what they are called."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_mm.apis.sources import File, count_sources, list_files, read_sources
from hybrid_mm.errors import UserError

IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def photos(tmp_path):
    """A folder of three images, one of them in a subfolder, and an image outside of it."""
    (tmp_path / 'photos' / 'sub').mkdir(parents=True)
    (tmp_path / 'outside').mkdir()
    for name in ('photos/a.png', 'photos/b.png', 'photos/sub/a.png', 'outside/c.png'):
        cv2.imwrite(str(tmp_path / name), IMAGE)
    return tmp_path / 'photos'


def names(inputs):
    return [source.name for source in read_sources(inputs)]


def test_links_have_their_own_names(photos):
    (photos / 'link.png').symlink_to(photos.parent / 'outside' / 'c.png')
    (photos / 'folder').symlink_to(photos.parent / 'outside')
    expected = ['a.png', 'b.png', 'folder/c.png', 'link.png', 'sub/a.png']
    assert names(photos) == expected
    assert names([photos]) == expected
    assert names(photos / 'link.png') == ['link.png']
    (photos.parent / 'again').symlink_to(photos)
    assert names(photos.parent / 'again') == expected
    both = names([photos / 'link.png', photos.parent / 'outside'])
    assert both == ['photos/link.png', 'outside/c.png']


def test_folders_that_are_linked_in_a_circle(photos):
    (photos / 'sub' / 'up').symlink_to(photos)
    (photos / 'here').symlink_to(photos)
    assert names(photos) == ['a.png', 'b.png', 'sub/a.png']
    (photos / 'first').mkdir()
    (photos / 'first' / 'link').symlink_to(photos / 'sub')  # the folder's own name is taken
    assert names(photos) == ['a.png', 'b.png', 'sub/a.png']


def test_what_only_looks_like_an_image(photos):
    (photos / '._a.png').write_bytes(b'\0\5\x16\7')
    (photos / 'folder.png').mkdir()
    (photos / 'broken.png').symlink_to(photos / 'nowhere.png')
    os.mkfifo(photos / 'pipe.png')
    assert names(photos) == ['a.png', 'b.png', 'broken.png', 'pipe.png', 'sub/a.png']
    with pytest.raises(UserError, match=r'broken\.png does not exist; it is a link to .*nowhere'):
        names(photos / 'broken.png')
    with pytest.raises(UserError, match=r'pipe\.png is neither an image nor a folder'):
        names(photos / 'pipe.png')


def test_a_folder_that_cannot_be_read_is_an_input_that_cannot_be_read(photos, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if Path(path).name == 'sub':
            raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert names(photos) == ['a.png', 'b.png', 'sub']


def test_files_that_are_named_twice_are_taken_once(photos, capsys):
    found = list_files([photos, photos / 'a.png', photos / 'sub', f'{photos}/../photos/b.png'])
    assert [file.name for file in found] == ['a.png', 'b.png', 'sub/a.png']
    assert capsys.readouterr().err.startswith('warning: 3 of the inputs are named twice')
    assert names(found) == ['a.png', 'b.png', 'sub/a.png'] and count_sources(found) == 3
    # from Python there is a result for every input
    assert names([photos / 'a.png', photos / 'a.png']) == ['a.png', 'a.png']
    assert names(File(photos / 'a.png', 'x/y.png')) == ['x/y.png']


def test_results_are_no_inputs(photos, capsys):
    """Those of the same run and of others; a folder of that name without results is one."""
    for folder, written in (('out', True), ('other', True), ('mine', False)):
        (photos / folder / 'pictures').mkdir(parents=True)
        cv2.imwrite(str(photos / folder / 'pictures' / 'a.png.png'), IMAGE)
        cv2.imwrite(str(photos / folder / 'x.png'), IMAGE)
        if written:
            (photos / folder / 'predictions.json').write_text(json.dumps([]))
    found = [file.name for file in list_files([photos], photos / 'out')]
    kept = ['mine/pictures/a.png.png', 'mine/x.png', 'other/x.png', 'out/x.png']
    assert found == ['a.png', 'b.png', *kept, 'sub/a.png']
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 2
    assert all('its pictures are not used as inputs' in line for line in warned)
    for path in ('out/pictures', 'out/pictures/a.png.png'):
        with pytest.raises(UserError, match='is in the folder of the results'):
            list_files([photos / path], photos / 'out')
    assert len(list_files([photos / 'other' / 'pictures'], photos / 'out')) == 1  # on purpose


def test_a_video_that_ends_early(tmp_path, capsys, monkeypatch):
    path = tmp_path / 'v.avi'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5.0, (64, 48))
    for i in range(40):
        video.write(np.full((48, 64, 3), i, np.uint8))
    video.release()
    assert len(list(read_sources(path))) == 40
    assert not capsys.readouterr().err
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = list(read_sources(path))
    assert 0 < len(found) < 38
    assert f'v.avi: {len(found)} of 40 frames can be decoded' in capsys.readouterr().err


def test_a_video_whose_name_is_no_text(tmp_path):
    """OpenCV ends the process at such a name."""
    plain = tmp_path / 'v.mp4'
    video = cv2.VideoWriter(str(plain), cv2.VideoWriter_fourcc(*'mp4v'), 5.0, (64, 48))
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.mp4'))
    plain.rename(path)
    (source,) = read_sources(path)
    assert source.name == 'caf\udce9.mp4' and source.frame == 0
    assert count_sources([path]) == 1
