"""Messages of data loaders for which a machine has too little memory, shared memory or files."""

import re
import shutil

_FULL = re.compile('shared memory|No space left|Bus error')


def explain_workers(error: BaseException) -> str | None:
    """One line for an exception of data loaders and what they share memory with, else None."""
    text = str(error).strip()
    if not isinstance(error, RuntimeError):
        return None
    if text.startswith('DataLoader worker'):
        first = text.split('\n')[0].split('. ')[0]
        return (
            f'{first}: the system killed it because memory ran out (see dmesg): use fewer workers; '
            f'or {remedy("Bus error")}'
        )
    if 'unable to allocate shared memory' in text or 'unable to open shared memory' in text:
        return f'{text.splitlines()[0]}; {remedy(text)}'
    return None


def remedy(text: str) -> str:
    """What to do about an error of handing data from one process to another."""
    if _FULL.search(text):
        place = '/dev/shm'
        try:
            usage = shutil.disk_usage(place)
            place += f' ({usage.total / 2**20:.0f} MB, {usage.free / 2**20:.0f} MB free now)'
        except OSError:
            pass
        return (
            f'the shared memory in {place} is too small for the batches of all workers: give a '
            'container more (docker run --shm-size=8g, or --ipc=host), or use fewer workers '
            '(--cfg-options train_dataloader.num_workers=0, val_dataloader.num_workers=0)'
        )
    if 'Too many open files' in text or 'ancdata' in text:
        return 'allow more open files (ulimit -n 65536), or use fewer workers'
    return 'with num_workers=0 nothing is passed between processes'
