"""Checks of a checkpoint in the moment in which a runner loads it."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.checkpoints import check_some_weights, check_weights
from hybrid_mm.errors import shorten, warn


class StrictLoadingHook(Hook):
    """Stop a runner that is about to load the checkpoint of another model.

    It sees the checkpoint after all other hooks, since an ``EMAHook`` exchanges its weights.

    Args:
        path: The checkpoint, for messages.
    """

    priority = 'LOWEST'

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check keys and shapes; warn if the classes are not those of the data set.

        Raises:
            CheckpointError: The weights do not fit the model.
        """
        # MMEngine looks for the weights nowhere else, and would load nothing, silently
        checkpoint['state_dict'] = check_weights(runner.model, checkpoint, self.path)
        trained = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        ours = (runner.test_dataloader.dataset.metainfo or {}).get('classes')
        if trained and ours and tuple(trained) != tuple(ours):
            warn(
                f'the classes of {self.path} ({shorten(list(trained))}) are not those of the data '
                f'set ({shorten(list(ours))})'
            )


class StartingWeightsHook(Hook):
    """Stop a training whose ``load_from`` has no weights for its model.

    MMEngine loads what fits, which is how a network is fine-tuned with other heads, and only logs
    the rest.

    Args:
        path: The checkpoint, for messages.
    """

    priority = 'VERY_HIGH'  # an EMAHook reads `state_dict`

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the weights where MMEngine looks for them, whatever container the file has.

        Raises:
            CheckpointError: Not one tensor fits the model.
        """
        weights = check_some_weights(runner.model, checkpoint, self.path)
        if not isinstance(checkpoint.get('state_dict'), dict):
            checkpoint['state_dict'] = weights
