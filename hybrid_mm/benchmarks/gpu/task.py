"""A thing to find out on a GPU, and what came out. Imports nothing but Python's own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, SKIP, CRASH, HANG = 'PASS', 'FAIL', 'SKIP', 'CRASH', 'HANG'
BAD = FAIL, CRASH, HANG


class Skipped(Exception):
    """A task that cannot be done here; the text is the reason."""


class Failed(Exception):
    """A task whose result is wrong; the text says what and by how much, ``figures`` the numbers."""

    def __init__(self, text: str, **figures: Any) -> None:
        super().__init__(text)
        self.figures = figures


@dataclass(frozen=True)
class Options:
    """What all tasks are made from.

    Attributes:
        device: 'cuda' or 'cpu'.
        dry: Toy sizes, kernels in Triton's interpreter.
    """

    device: str = 'cuda'
    dry: bool = False


@dataclass(frozen=True)
class Task:
    """One thing to find out.

    Attributes:
        name: ``group/what/...``, unique.
        run: Does it, and returns a text and figures; raises Skipped or Failed.
        seconds: Time after which it counts as hanging.
        alone: It is measured, so that nothing else may run on the GPU.
        order: Tasks of low order come first.
    """

    name: str
    run: Callable[[], tuple[str, dict[str, Any]]]
    seconds: float = 60.0
    alone: bool = False
    order: float = 0.0


@dataclass
class Result:
    """What came out of a task.

    Attributes:
        name: Name of the task.
        status: PASS; FAIL: a wrong result or an exception; CRASH: it took the process along; HANG:
            it was stopped; SKIP: it cannot be done here, or was not reached.
        text: One line.
        figures: Numbers for the table and the JSON file.
        details: Traceback or the last lines that the process wrote.
        seconds: Time that it took, compilation of kernels included.
    """

    name: str
    status: str
    text: str = ''
    figures: dict[str, Any] = field(default_factory=dict)
    details: str = ''
    seconds: float = 0.0
