"""Files that a crash cannot damage."""

import os

from hybrid_mm.engine import atomic_files


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """A power failure after the renaming must not leave a file without content."""
    seen, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        seen.append(('sync', os.readlink(f'/proc/self/fd/{descriptor}'), os.fstat(descriptor)))
        fsync(descriptor)

    def renamed(source, target):
        seen.append(('rename', str(source), str(target)))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', renamed)
    path = tmp_path / 'new' / 'x.pth'
    atomic_files.write_atomically(path, b'a' * 100_000)
    assert [step[0] for step in seen] == ['sync', 'rename', 'sync']
    first, second, third = seen
    assert first[1] == second[1] != str(path) == second[2]
    assert first[2].st_size == 100_000  # nothing is left in a buffer of ours
    assert third[1] == str(path.parent)
    assert path.read_bytes() == b'a' * 100_000
