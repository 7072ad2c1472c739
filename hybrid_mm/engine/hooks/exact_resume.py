"""Runs that continue after an interruption as if there had been none."""

from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from hybrid_mm.compat.workarounds import b10_skip_seen_data
from hybrid_mm.data.seeded import seed_generators
from hybrid_mm.registry import HOOKS

# keys in the message hub, which checkpoints contain
_DONE = 'validated_iter'
DATA = 'training_data'


def data_of(runner: Runner) -> dict[str, int]:
    """Numbers that decide where in the data an iteration is; they are stored in checkpoints."""
    loader = runner.train_loop.dataloader
    return dict(samples=len(loader.dataset), length=len(loader), processes=get_world_size())


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run bit-identical to one without interruption.

    Before every iteration the random generators of Python, NumPy and torch are seeded from the
    run's seed, the rank and the number of the iteration, so that their states need not be saved.
    A :class:`~hybrid_mm.data.seeded.PlacedSampler` and a
    :class:`~hybrid_mm.data.seeded.SeededDataset` do the same for the data, with any number of
    workers. A validation that was due at the checkpoint is made up for. Validations of several
    processes are with the running statistics of the first one, which are those of checkpoints.

    Hooks that draw random numbers before an iteration must come after this one; the order of the
    others does not matter.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Note the amount of data in the checkpoints that follow; pass over what was seen."""
        runner.message_hub.update_info(DATA, data_of(runner))
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            b10_skip_seen_data(runner.train_loop)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seed the generators for this iteration and rank."""
        seed_generators(runner.seed, get_rank(), runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        """Validate if the interruption came between the checkpoint and its validation."""
        if not getattr(runner, '_resume', False) or runner.val_loop is None or not runner.iter:
            return
        runner._resume = False  # in the first epoch only
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        loop._decide_current_val_interval()
        due = now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)
        if due and runner.message_hub.runtime_info.get(_DONE) != runner.iter:
            runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        """The same where no epoch was left to train."""
        self.before_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        """Note the validation in the checkpoints that follow; share the running statistics."""
        runner.message_hub.update_info(_DONE, runner.iter)
        if get_world_size() == 1:
            return
        averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        for module in (runner.model, *averages):
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    broadcast(buffer)
