"""Stop of a run that is about to load the checkpoint of another model."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.checkpoints import check_weights
from hybrid_mm.errors import shorten, warn


class StrictLoadingHook(Hook):
    """Stop a runner that is about to load the checkpoint of another model.

    The last of the hooks to see the checkpoint: that of averaged weights exchanges them.

    Args:
        path: The checkpoint, for messages.
    """

    priority = 'LOWEST'

    def __init__(self, path: str):
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check keys and shapes; warn if the classes are others than those of the data set."""
        # MMEngine looks for them nowhere else, and loads nothing without a word if it finds none
        checkpoint['state_dict'] = check_weights(runner.model, checkpoint, self.path)
        trained = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        ours = (runner.test_dataloader.dataset.metainfo or {}).get('classes')
        if trained and ours and tuple(trained) != tuple(ours):
            warn(
                f'the classes of {self.path} ({shorten(list(trained))}) are not those of the data '
                f'set ({shorten(list(ours))})'
            )
