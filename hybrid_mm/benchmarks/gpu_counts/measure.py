"""Count a training step of operators and of networks."""

import contextlib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.benchmarks.gpu_counts.engine import Node, backward
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import HALF, fake_cuda, on_fake_cuda
from hybrid_mm.benchmarks.gpu_counts.networks import IMAGES
from hybrid_mm.benchmarks.gpu_counts.operators import Operator, inputs_of
from hybrid_mm.benchmarks.gpu_counts.trace import GPUS, LAUNCH_SECONDS, Counts, Trace, own_file
from hybrid_mm.compat.torch_api import tree_leaves


@dataclass
class Step:
    """Counts of a forward and a backward pass.

    Attributes:
        forward: Counts of the forward pass.
        backward: Counts of the backward pass.
        repeated: Copies from the host in a second step with the same shapes; None if there was
            none.
        ideal: Bytes of the forward and the backward pass of one fused kernel each, which reads its
            inputs and writes its outputs once.
        floor: Seconds on each GPU of these two kernels.
    """

    forward: Counts = field(default_factory=Counts)
    backward: Counts = field(default_factory=Counts)
    repeated: int | None = None
    ideal: tuple[int, int] = (0, 0)
    floor: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """Counts of both passes."""
        return self.forward + self.backward

    def seconds(self, gpu: str) -> float:
        """Seconds on a GPU without launches; of launches of Triton only the bytes are known."""
        return max(self.total.seconds[gpu], self.floor.get(gpu, 0.0))

    @property
    def launch_seconds(self) -> float:
        """Seconds that a host takes for the launches."""
        return self.total.kernels * LAUNCH_SECONDS


def count_operator(operator: Operator, amp: torch.dtype | None = None) -> Step:
    """Count two steps of an operator, the second one for what is copied every time.

    Args:
        operator: The operator.
        amp: Type of autocast, in which its maps are given; None for float32.
    """
    with fake_cuda():
        inputs = inputs_of(operator, amp or torch.float32)
        trace = Trace(autocast=amp is not None)
        step, outputs = _step(trace, lambda: operator.call(*inputs), inputs, amp)
        again, _ = _step(trace, lambda: operator.call(*inputs), inputs, amp)
        total = again.total
        step.repeated = sum(total.to_device.values()) + total.tables
        given, made = _size(inputs), _size(outputs)
    step.ideal = given + made, 2 * given + made
    for name, gpu in GPUS.items():
        rate = gpu.half if amp in HALF else gpu.single
        passes = zip(step.ideal, (1.0, operator.gradients), strict=True)
        step.floor[name] = sum(
            max(moved / gpu.bandwidth, factor * operator.flops / rate) for moved, factor in passes
        )
    return step


def count_network(
    config: dict[str, Any],
    amp: torch.dtype | None = None,
    images: Sequence[int] = IMAGES,
    places: bool = False,
) -> Step:
    """Count a training step of a backbone: forward and backward from all of its maps.

    Args:
        config: Config of the backbone.
        amp: Type of autocast, None for float32.
        images: Shape of the images.
        places: Note where in our code kernels come from; slow.
    """
    network = MODELS.build(dict(config)).train()  # some initial values need real numbers
    with fake_cuda():
        on_fake_cuda(network)
        x = torch.empty(tuple(images), device='cuda')
        return _step(Trace(amp is not None, places), lambda: network(x), network.parameters(), amp)[
            0
        ]


def _step(
    trace: Trace, call: Callable[[], Any], leaves: Iterable[Tensor], amp: torch.dtype | None
) -> tuple[Step, list[Tensor]]:
    """Forward and backward pass of a function; gradients of leaves are forgotten."""
    step = Step()
    cast = torch.autocast('cuda', dtype=amp) if amp else contextlib.nullcontext()
    anomaly = (
        torch.autograd.set_detect_anomaly(True, False) if trace.places else contextlib.nullcontext()
    )
    with trace.section() as step.forward, cast, anomaly:
        outputs = [y for y in tree_leaves(call()) if isinstance(y, Tensor)]
    for y in outputs:
        if not y.is_cuda:
            step.forward.mixed.append(f'output on {y.device}')
    with trace.section() as step.backward:
        backward(outputs, enter=_labels(trace) if trace.places else lambda node: None)
    for leaf in leaves:
        if leaf.grad is not None and not leaf.grad.is_cuda:
            step.backward.mixed.append(f'gradient on {leaf.grad.device}')
        leaf.grad = None
    return step, outputs


def _labels(trace: Trace) -> Callable[[Node], None]:
    """Name kernels of the backward pass after the line of our code whose gradient they are."""

    def enter(node: Node) -> None:
        lines = node.metadata.get('traceback_', [])
        ours = [own_file(line) for line in lines if own_file(line)]
        trace.label = f'{type(node).__name__} (a leaf or a sum)'
        if ours:
            file, number = ours[-1].split('", line ')
            place = f'{file}:{number.split(",")[0]}'
            trace.label = f'gradient of {place}'

    return enter


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def reason(error: Exception) -> str:
    """An error in one line, with its place in our code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if own_file(f.filename)]
    place = f' at {own_file(ours[-1].filename)}:{ours[-1].lineno}' if ours else ''
    return f'{type(error).__name__}: {str(error)[:200]}{place}'
