"""The process that does tasks: reads names from stdin, answers each with a line of JSON.

python -m hybrid_mm.benchmarks.gpu.worker MODULE:FUNCTION OPTIONS

FUNCTION makes the tasks from the options (JSON). A wrong result or an exception is an answer; what
ends the process, or leaves a GPU context that can do nothing more, is seen by the
:mod:`~hybrid_mm.benchmarks.gpu.supervisor`.
"""

import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict

from hybrid_mm.benchmarks.gpu.task import (
    CRASH,
    FAIL,
    PASS,
    SKIP,
    Failed,
    Options,
    Result,
    Skipped,
    Task,
)

_LINES = 12  # of a traceback


def main(suite: str, options: str) -> None:
    """Answer until stdin ends, or the GPU can do nothing more."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print goes to the log
    logging.disable(logging.INFO)  # MMEngine lists every weight that it initialises
    module, _, function = suite.partition(':')
    found: Iterable[Task] = getattr(importlib.import_module(module), function)(
        Options(**json.loads(options))
    )
    tasks = {task.name: task for task in found}
    for line in sys.stdin:
        result = perform(tasks[json.loads(line)])
        print(json.dumps(asdict(result), default=str), file=answers, flush=True)
        if result.status == CRASH:
            os._exit(1)  # a dead context may hang while the interpreter ends


def perform(task: Task) -> Result:
    """Do a task and tell what came out."""
    start = time.monotonic()
    result = Result(task.name, PASS)
    try:
        result.text, result.figures = task.run()
    except Skipped as reason:
        result.status, result.text = SKIP, str(reason)
    except Failed as failure:
        result.status, result.text, result.figures = FAIL, str(failure), failure.figures
    except Exception as error:
        result.status = FAIL
        result.text = f'{type(error).__name__}: {_one_line(error)}'
        result.details = '\n'.join(traceback.format_exc().splitlines()[-_LINES:])
        if _out_of_memory(error):
            result.status, result.text = SKIP, 'out of memory'
    problem = _device_problem()
    if problem:
        result.status, result.details = CRASH, result.details or problem
        result.text = f'the GPU context is lost: {result.text or problem}'
    result.seconds = round(time.monotonic() - start, 3)
    return result


def _one_line(error: BaseException, limit: int = 300) -> str:
    text = ' '.join(str(error).split())
    return text if len(text) <= limit else text[:limit] + ' ...'


def _out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get('torch')
    return isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
    )


def _device_problem() -> str:
    """What a GPU says after its kernels have finished, if that is an error; and free its memory."""
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ''
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        return _one_line(error)
    return ''


if __name__ == '__main__':
    main(*sys.argv[1:])
