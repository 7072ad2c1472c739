"""Runs that go on after an interruption as if there had been none."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from hybrid_mm.data.seeded import seed_generators
from hybrid_mm.registry import HOOKS

_DONE = 'validated_iter'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Let a resumed run be bit-identical to one without interruption.

    Before every iteration the random generators of Python, NumPy and torch are seeded from the
    run's seed, the process and the number of the iteration, so that no state of theirs is needed to
    go on. With a :class:`~hybrid_mm.data.seeded.PlacedSampler` and a
    :class:`~hybrid_mm.data.seeded.SeededDataset` the same holds for the data, with any number of
    workers. A validation that was due at the checkpoint is made up for.

    The order of the other hooks does not matter, except that those that draw random numbers before
    an iteration come behind it.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed the generators."""
        seed_generators(runner.seed, get_rank(), runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        """Validate first if the run was interrupted between a checkpoint and its validation."""
        if not getattr(runner, '_resume', False) or runner.val_loop is None or not runner.iter:
            return
        runner._resume = False  # once
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        loop._decide_current_val_interval()
        due = now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)
        if due and runner.message_hub.runtime_info.get(_DONE) != runner.iter:
            runner.val_loop.run()

    def before_val(self, runner: Runner) -> None:
        """Note the validation in what is saved from here on."""
        runner.message_hub.update_info(_DONE, runner.iter)
