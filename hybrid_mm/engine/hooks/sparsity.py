"""Dynamic sparsity during training, as SLaK and PeLK use it."""

import copy
import math
from collections.abc import Sequence

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.registry import HOOKS

_KEY = 'hybrid_mm_sparsity'
_LAST_RATE = 0.005
_DENSE = 0.99  # a tensor that is denser stays whole


def sparse_layer_densities(
    weights: dict[str, Tensor], gradients: dict[str, Tensor], density: float
) -> dict[str, float]:
    """Density of every tensor where the largest scores ``|w dL/dw|`` of all are kept.

    Source: "SNIP: Single-shot Network Pruning" (arXiv 1810.02340), eq. 5 and 6; SLaK uses only the
    densities of the layers, not the masks.

    Args:
        weights: Tensors by name.
        gradients: Gradients of a batch's loss by the same names.
        density: Fraction of all numbers that is kept.
    """
    scores = {name: (w * gradients[name]).abs().float() for name, w in weights.items()}
    total = sum(s.numel() for s in scores.values())
    kept = max(1, int(density * total))
    # the smallest score that is kept
    threshold = torch.cat([s.flatten() for s in scores.values()]).kthvalue(total - kept + 1).values
    return {name: (s >= threshold).float().mean().item() for name, s in scores.items()}


def prune_and_grow(weight: Tensor, mask: Tensor, rate: float) -> Tensor:
    """New mask, without the smallest weights and with as many others that are drawn at random.

    Source: "Sparse Evolutionary Training" (arXiv 1707.04780), as in the code of SLaK.

    Args:
        weight: The masked tensor.
        mask: Its mask, bool: True where a weight is alive.
        rate: Fraction of the weights alive that are exchanged.
    """
    alive = int(mask.sum())
    removed = min(alive, math.ceil(rate * alive))
    magnitude = weight.abs().masked_fill(~mask, math.inf).flatten()
    mask = mask.clone().flatten()
    mask[magnitude.topk(removed, largest=False).indices] = False
    free = mask.numel() - int(mask.sum())
    if free:
        mask |= ~mask & (torch.rand(mask.shape, device=mask.device) < removed / free)
    return mask.view_as(weight)


@HOOKS.register_module()
class SparsityHook(Hook):
    """Keep a fraction of the weights at zero, and change which ones in the course of the training.

    Source: "More ConvNets in the 2020s" (arXiv 2207.03620), section 3.2. Every parameter with two
    or four dimensions has a mask, and is multiplied by it after every step of the optimizer.
    Parameters with one dimension, and position embeddings, have none. The average of an ``EMAHook``
    is masked as well, since checkpoints contain it instead of the weights; that of a weight which
    comes alive starts at its first value, as in the official code, not at zero. Masks are saved in
    the checkpoints, so that training can be resumed; in distributed training those of rank 0 are
    used.

    In pre-training: ``dict(type='hybrid_mm.SparsityHook', sparsity=0.4, interval=2000,
    prune_rate=0.5)``. In fine-tuning of a sparse backbone, whose zeros are kept:
    ``dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')``.

    Args:
        sparsity: Fraction of the numbers of all masked tensors that are zero. The density of each
            tensor follows from the gradients of one batch (:func:`sparse_layer_densities`); the
            weights themselves are drawn at random.
        init: 'snip' as above, or 'zeros': zeros of the loaded weights stay zeros.
        interval: Iterations from one exchange of weights to the next, or 0 for none, the only
            choice with ``init='zeros'``.
        prune_rate: Fraction of a tensor's weights that the first exchange takes; it falls to 0.005
            at the end of the training, along a cosine.
        scope: Prefix of the names of parameters that are masked; by default all are.

    Raises:
        ValueError: Numbers out of range, an unknown ``init``; at the start of training: no
            parameter under ``scope``, with ``init='zeros'`` none that has zeros, or masks of
            another model in the checkpoint.
    """

    priority = 'LOW'  # after the optimizer's step and EMAHook, before saving

    def __init__(
        self,
        sparsity: float = 0.4,
        init: str = 'snip',
        interval: int = 0,
        prune_rate: float = 0.5,
        scope: str = '',
    ) -> None:
        if init not in ('snip', 'zeros'):
            raise ValueError(f"SparsityHook: init must be 'snip' or 'zeros', got {init!r}")
        if not 0 < sparsity < 1 or not 0 < prune_rate <= 1:
            raise ValueError(
                'SparsityHook: sparsity must lie in (0, 1) and prune_rate in (0, 1], got '
                f'{sparsity} and {prune_rate}'
            )
        if interval < 0 or (interval and init == 'zeros'):
            raise ValueError(
                "SparsityHook: interval must be at least 0, and 0 with init='zeros', got "
                f'{interval}'
            )
        self.sparsity, self.init, self.interval = sparsity, init, interval
        self.prune_rate, self.scope = prune_rate, scope
        self.masks: dict[str, Tensor] = {}
        self.born: dict[str, Tensor] = {}  # weights alive that are zero, before their first step

    def before_train(self, runner: Runner) -> None:
        """Draw the masks, unless they were loaded with a checkpoint, and apply them."""
        weights = self._weights(runner)
        if not weights:
            raise ValueError(
                f'SparsityHook: no parameter with 2 or 4 dimensions under scope={self.scope!r}'
            )
        if self.masks:
            self._check(weights)
        elif self.init == 'zeros':
            self.masks = {name: w.detach() != 0 for name, w in weights.items()}
            self.masks = {name: mask for name, mask in self.masks.items() if not mask.all()}
            if not self.masks:
                raise ValueError(
                    "SparsityHook: init='zeros' found no zeros: the weights that were loaded are "
                    'those of a dense model, or none were loaded. Take the hook out of '
                    'custom_hooks, or load sparse weights'
                )
        else:
            self.masks = self._snip(runner, weights)
        self.masks = {name: mask.to(weights[name].device) for name, mask in self.masks.items()}
        self._broadcast()
        self._apply(runner, weights)
        self._find_born(weights)
        self._report(runner, weights)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | Sequence | None = None,
    ) -> None:
        """Apply the masks, and exchange weights at the interval."""
        weights = self._weights(runner)
        self._apply(runner, weights)
        done = runner.iter + 1
        if self.interval and done % self.interval == 0 and done < runner.max_iters:
            rate = self.rate(done / runner.max_iters)
            for name, mask in self.masks.items():
                self.masks[name] = prune_and_grow(weights[name].detach(), mask, rate)
            self._broadcast()
            self._apply(runner, weights)
            self._find_born(weights)
            self._report(runner, weights)

    def rate(self, progress: float) -> float:
        """Fraction of the weights exchanged at a point of the training, from 0 to 1."""
        first = self.prune_rate
        return _LAST_RATE + (first - _LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the masks in the checkpoint."""
        checkpoint[_KEY] = {name: mask.cpu() for name, mask in self.masks.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the masks, if the training is resumed."""
        if getattr(runner, '_resume', False):
            self.masks = dict(checkpoint.get(_KEY, {}))

    def _weights(self, runner: Runner) -> dict[str, nn.Parameter]:
        return {
            name: p
            for name, p in inner_model(runner.model).named_parameters()
            if p.ndim in (2, 4) and name.startswith(self.scope)
        }

    def _check(self, weights: dict[str, nn.Parameter]) -> None:
        for name, mask in self.masks.items():
            shape = tuple(weights[name].shape) if name in weights else 'no such parameter'
            if shape != tuple(mask.shape):
                raise ValueError(
                    f'SparsityHook: the checkpoint has a mask {tuple(mask.shape)} of {name}, the '
                    f'model {shape}: it belongs to another model'
                )

    def _snip(self, runner: Runner, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        model = inner_model(runner.model)
        names, parameters = zip(*weights.items(), strict=True)
        # the batch must not change running statistics
        buffers = copy.deepcopy(dict(model.named_buffers()))
        # not from an iterator of the loader: an infinite sampler cannot be iterated twice
        loader = runner.train_dataloader
        size = loader.batch_size or loader.batch_sampler.batch_size
        chosen = torch.randperm(len(loader.dataset))[:size].tolist()
        batch = loader.collate_fn([loader.dataset[i] for i in chosen])
        with torch.enable_grad():
            data = model.data_preprocessor(batch, True)
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        found = {
            name: torch.zeros_like(p) if gradient is None else gradient
            for name, p, gradient in zip(names, parameters, gradients, strict=True)
        }
        own = {name: p.detach() for name, p in weights.items()}
        # every rank has another batch, but the same tensors must have masks everywhere
        densities = [sparse_layer_densities(own, found, 1 - self.sparsity)]
        dist.broadcast_object_list(densities)
        return {
            name: torch.rand_like(own[name], dtype=torch.float32) < density
            for name, density in densities[0].items()
            if density < _DENSE
        }

    def _broadcast(self) -> None:
        if dist.get_world_size() > 1:
            for mask in self.masks.values():
                dist.broadcast(mask)

    @torch.no_grad()
    def _apply(self, runner: Runner, weights: dict[str, nn.Parameter]) -> None:
        averages = [
            dict(hook.ema_model.module.named_parameters())
            for hook in runner.hooks
            if isinstance(hook, EMAHook)
        ]
        for name, mask in self.masks.items():
            weights[name].mul_(mask)
            for average in averages:
                value, device = average[name], average[name].device
                value.mul_(mask.to(device))
                if name in self.born:
                    born = self.born[name].to(device)
                    value.copy_(torch.where(born, weights[name].to(device), value))
        self.born = {}

    def _find_born(self, weights: dict[str, nn.Parameter]) -> None:
        self.born = {name: mask & (weights[name] == 0) for name, mask in self.masks.items()}

    def _report(self, runner: Runner, weights: dict[str, nn.Parameter]) -> None:
        parameters = sum(p.numel() for p in inner_model(runner.model).parameters())
        total = sum(w.numel() for w in weights.values())
        zeros = sum(mask.numel() - int(mask.sum()) for mask in self.masks.values())
        print_log(
            f'SparsityHook: {len(self.masks)} tensors masked, {total - zeros:,} of {total:,} '
            f'weights alive ({zeros / total:.1%} sparse); the model has {parameters - zeros:,} of '
            f'{parameters:,} parameters',
            'current',
        )
