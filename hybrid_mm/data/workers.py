"""Batches of data loaders that cannot be handed over, and workers that die."""

import contextlib
import os
import re
import shutil
import traceback
from multiprocessing.queues import Queue

from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from hybrid_mm.errors import UserError

_FULL = re.compile('shared memory|No space left|Bus error')


class LostBatchError(UserError):
    """A worker of a data loader cannot hand a batch over to the training."""

    def __init__(self, text: str) -> None:
        # a data loader raises errors of its workers again, with their traceback as the message
        super().__init__(text.rpartition(f'{__name__}.{type(self).__name__}: ')[2].strip())


def explain_workers(error: BaseException) -> str | None:
    """One line for an exception of data loaders and what they share memory with, else None."""
    text = str(error).strip()
    if not isinstance(error, RuntimeError):
        return None
    if text.startswith('DataLoader worker'):
        first = text.split('\n')[0].split('. ')[0]
        return (
            f'{first}: the system ended it for want of memory (see dmesg), which fewer workers '
            f'need less of, or {_remedy("Bus error")}'
        )
    if 'unable to allocate shared memory' in text or 'unable to open shared memory' in text:
        return f'{text.splitlines()[0]}; {_remedy(text)}'
    return None


def _remedy(text: str) -> str:
    if _FULL.search(text):
        place = '/dev/shm'
        try:
            usage = shutil.disk_usage(place)
            place += f' ({usage.total / 2**20:.0f} MB, {usage.free / 2**20:.0f} MB free now)'
        except OSError:
            pass
        return (
            f'the shared memory in {place} is too small for the batches of all workers: give a '
            'container more (docker run --shm-size=8g, or --ipc=host), or take fewer workers '
            '(--cfg-options train_dataloader.num_workers=0, val_dataloader.num_workers=0)'
        )
    if 'Too many open files' in text or 'ancdata' in text:
        return 'allow more open files (ulimit -n 65536), or take fewer workers'
    return 'with num_workers=0 there is nothing to hand over'


class _Feeding:
    """What a worker does with a batch that it cannot put into the queue of its loader.

    Python prints a traceback and forgets the batch, for which the training then waits for ever.
    """

    def _on_queue_feeder_error(self, error: Exception, item: object) -> None:
        worker = get_worker_info()
        if worker is None:
            traceback.print_exc()
        elif isinstance(item, tuple) and len(item) == 2:  # the number of the batch, and its data
            reason = str(error).strip().split('\n')[0] or type(error).__name__
            try:
                raise LostBatchError(
                    f'{__name__}.LostBatchError: worker {worker.id} of a data loader cannot hand '
                    f'over a batch: {reason}; {_remedy(f"{type(error).__name__} {reason}")}'
                )
            except LostBatchError:
                wrapped = ExceptionWrapper(where=f'in DataLoader worker process {worker.id}')
            with contextlib.suppress(ValueError):  # the queue is closed
                self.put((item[0], wrapped))  # type: ignore[attr-defined]
        else:
            traceback.print_exc()
            os._exit(1)  # the loader notices that


# a private hook of Python, there for this purpose; only workers of torch's loaders behave otherwise
Queue._on_queue_feeder_error = _Feeding._on_queue_feeder_error  # type: ignore[attr-defined]
