"""Outcomes of a contract: failures that say what was expected and what was found, and a report."""

import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hybrid_mm.errors import nearest

T = TypeVar('T')
LONGEST = 400  # characters of the text of an error that is not ours
_FOREIGN = (Path(torch.__file__).parent, Path(__file__).parent)
"""Folders of code that is not under test."""


class ContractError(AssertionError):
    """A promise of the contract is broken. The text names the check, and expected and found."""


class DoesNotApply(Exception):
    """A check that says nothing about this network or operator; the text is the reason."""


@dataclass(frozen=True)
class Result:
    """Outcome of one check.

    Attributes:
        check: Name of the check.
        outcome: 'passed' or 'skipped'.
        reason: Why it was skipped, or empty.
    """

    check: str
    outcome: str
    reason: str = ''


@dataclass(frozen=True)
class Report:
    """Results of all checks of one network or operator; ``print(report)`` shows a line for each.

    Attributes:
        subject: Name of the network or operator.
        results: One for each check, in their order.
    """

    subject: str
    results: Sequence[Result]

    def __str__(self) -> str:
        """A line per check."""
        width = max((len(result.check) for result in self.results), default=0)
        lines = [
            f'  {r.check:{width}}  {r.outcome}{f": {r.reason}" if r.reason else ""}'
            for r in self.results
        ]
        return '\n'.join([f'{self.subject}:', *lines])

    def skipped(self) -> dict[str, str]:
        """Reasons of the checks that were skipped."""
        return {r.check: r.reason for r in self.results if r.outcome == 'skipped'}


def require(condition: bool, message: str) -> None:
    """Raise :class:`ContractError` unless a condition holds (``assert`` is removed by ``-O``)."""
    if not condition:
        raise ContractError(message)


def require_equal(found: Any, expected: Any, what: str) -> None:
    """Require two values to be equal."""
    require(found == expected, f'{what}: expected {expected}, found {found}')


def require_near(
    found: Tensor, expected: Tensor, tolerance: float, what: str, floor: float = 0.0
) -> None:
    """Require two tensors to have one shape, and to differ little in the norm.

    Args:
        found: A tensor.
        expected: What it should be.
        tolerance: Largest norm of the difference, as a multiple of the norm of ``expected``.
        what: What is compared, for the message.
        floor: Difference in the norm that is always allowed.
    """
    require_equal(tuple(found.shape), tuple(expected.shape), f'shape of {what}')
    if not expected.numel():
        return
    high = torch.promote_types(torch.promote_types(found.dtype, expected.dtype), torch.float32)
    error = (found.to(high) - expected.to(high)).norm().item()
    norm = expected.to(high).norm().item()
    require(
        error <= max(floor, tolerance * norm),  # false for NaN as well
        f'{what}: expected a difference of at most {tolerance:.0e} of the norm, '
        f'found {error / norm if norm else error:.1e}',
    )


def require_finite(tensor: Tensor, what: str) -> None:
    """Require all numbers to be finite."""
    wrong = int((~tensor.isfinite()).sum())
    require(not wrong, f'{what}: expected finite numbers, found {wrong} NaN or infinite ones')


@contextmanager
def error_expected(kind: type[Exception], pattern: str, what: str) -> Iterator[None]:
    """Require an error of a kind whose text matches a pattern."""
    try:
        yield
    except kind as error:
        require(
            re.search(pattern, str(error)) is not None,
            f'{what}: expected {kind.__name__} whose text matches {pattern!r}, found {error}',
        )
    else:
        raise ContractError(f'{what}: expected {kind.__name__}, found no error')


def require_close(found: Tensor, expected: Tensor, rtol: float, atol: float, what: str) -> None:
    """Require every element to be near to what it should be."""
    require_equal(tuple(found.shape), tuple(expected.shape), f'shape of {what}')
    far = ~torch.isclose(found, expected, rtol=rtol, atol=atol)
    if far.any():
        worst = (found - expected).abs().max().item()
        raise ContractError(
            f'{what}: expected elements within {rtol:.0e} (relative) or {atol:.0e} (absolute), '
            f'found {int(far.sum())} of {far.numel()} farther off, by up to {worst:.1e}'
        )


def require_same(found: Tensor, expected: Tensor, what: str) -> None:
    """Require two tensors to be equal bit by bit."""
    if not torch.equal(found, expected):
        shapes = f'{tuple(found.shape)} and {tuple(expected.shape)}'
        same = found.shape == expected.shape
        worst = f'differences up to {(found - expected).abs().max():.1e}' if same else shapes
        raise ContractError(f'{what}: expected equal tensors, found {worst}')


def told(error: BaseException) -> str:
    """An error of the code under test, on one line: kind, text and place."""
    text, place = ' '.join(str(error).split()), _place(traceback.extract_tb(error.__traceback__))
    if len(text) > LONGEST:
        text = f'{text[:LONGEST]} ...'
    kind = '' if isinstance(error, ContractError) else f'{type(error).__name__}: '
    return f'{kind}{text}{f" ({place})" if place else ""}'


def here() -> str:
    """Innermost line of the code under test that runs now."""
    return _place(traceback.extract_stack())


def _place(frames: traceback.StackSummary) -> str:
    """Innermost line of the code under test."""
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_file() and not any(folder in path.parents for folder in _FOREIGN):
            return f'{path.name}, line {frame.lineno}, in {frame.name}'
    return ''


def _kind(error: BaseException) -> tuple[type, str]:
    """What failures have in common that one mistake causes."""
    if isinstance(error, ContractError):
        if error.__cause__ is None:
            return ContractError, str(error)
        error = error.__cause__
    place = _place(traceback.extract_tb(error.__traceback__))
    return type(error), place or re.sub(r'\[.*?\]|\d+', '', str(error))


def run_checks(
    name: str,
    checks: Mapping[str, Callable[[T], None]],
    subject: T,
    only: str | Collection[str],
    skip: str | Collection[str],
    skipped: Mapping[str, str] | None = None,
) -> Report:
    """Run checks of a subject, all of them whether one fails or not.

    Args:
        name: The subject, for messages.
        checks: Checks by name.
        subject: What they check.
        only: Those to run; by default all.
        skip: Those to leave out.
        skipped: More to leave out unless ``only`` names them, with the reasons.

    Raises:
        ContractError: Some of them fail.
        ValueError: There is no check of a name.
    """
    wanted, left_out = (({n} if isinstance(n, str) else set(n)) for n in (only, skip))
    for unknown in sorted((wanted | left_out) - set(checks)):
        hint = nearest(unknown, checks) or f'; known are {", ".join(checks)}'
        raise ValueError(f'there is no check {unknown!r}{hint}')
    reasons = {} if wanted else dict(skipped or {})
    reasons |= dict.fromkeys(left_out, 'by argument')
    results: list[Result] = []
    failures: list[tuple[str, Exception]] = []
    for check, function in checks.items():
        if wanted and check not in wanted:
            continue
        if check in reasons:
            results.append(Result(check, 'skipped', reasons[check]))
            continue
        try:
            function(subject)
        except DoesNotApply as reason:
            results.append(Result(check, 'skipped', str(reason)))
        except Exception as error:
            failures.append((check, error))
        else:
            results.append(Result(check, 'passed'))
    if failures:
        alike: dict[tuple[type, str], list[str]] = {}
        for check, failure in failures:
            text = str(failure) if isinstance(failure, ContractError) else told(failure)
            alike.setdefault(_kind(failure), [f'  {check}: {text}']).append(check)
        lines = '\n'.join(
            f'{text}\n    for the same reason: {", ".join(others)}' if others else text
            for text, _, *others in alike.values()
        )
        total = len(failures) + len(results)
        raise ContractError(
            f'{name}: {len(failures)} of {total} checks of the contract failed\n{lines}'
        ) from failures[0][1]
    return Report(name, results)
