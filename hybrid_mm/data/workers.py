"""Batches of data loaders that cannot be handed over."""

import contextlib
import os
import traceback
from multiprocessing.queues import Queue

from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from hybrid_mm.compat.shared_memory import remedy
from hybrid_mm.errors import UserError


class LostBatchError(UserError):
    """A worker of a data loader cannot hand a batch over to the training.

    Args:
        text: The message; of an error that a data loader raises again, its text and traceback.
    """

    def __init__(self, text: str) -> None:
        # a data loader raises errors of its workers again, with their traceback as the message
        super().__init__(text.rpartition(f'{__name__}.{type(self).__name__}: ')[2].strip())


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
                    f'over a batch: {reason}; {remedy(f"{type(error).__name__} {reason}")}'
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
