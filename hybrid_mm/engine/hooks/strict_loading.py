"""Checks of a checkpoint in the moment in which a runner loads it."""

import logging

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.checkpoints import check_weights, inner_model, source_of, weights_of
from hybrid_mm.data.class_order import check_same_labels, classes_of_checkpoint
from hybrid_mm.engine.starting_weights import starting_weights


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
        """Check keys and shapes.

        Raises:
            CheckpointError: The weights do not fit the model.
        """
        # MMEngine looks for the weights nowhere else, and would load nothing, silently
        checkpoint['state_dict'] = check_weights(runner.model, checkpoint, self.path)


class SameClassesHook(Hook):
    """Compare the class names in a checkpoint with those of the data set that it is used with.

    Names that differ at one position may be a renaming: a warning. A class that has another label
    in the checkpoint is an error, or a warning where training starts from its weights.

    Args:
        path: The checkpoint, for messages.
        loader: Key of the dataloader: 'train_dataloader' or 'test_dataloader'.
        strict: Whether the labels must be the same, as in tests and when a run is resumed.
    """

    def __init__(self, path: str, loader: str, strict: bool = True) -> None:
        self.path, self.loader, self.strict = path, loader, strict

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the classes; nothing is compared if one of the two has no names.

        Raises:
            UserError: A class has different labels.
        """
        meta = getattr(getattr(runner, self.loader).dataset, 'metainfo', None)
        ours = meta.get('classes') if isinstance(meta, dict) else None
        trained = classes_of_checkpoint(checkpoint)
        if not trained or not ours or (len(trained) != len(ours) and not self.strict):
            return  # a head of another size is not loaded
        check_same_labels(
            (self.path, trained),
            (f'{self.loader}.dataset', list(ours)),
            f'list the classes in the order of the checkpoint in {self.loader}.dataset.metainfo',
            self.strict,
        )


class StartingWeightsHook(Hook):
    """Say how much of ``load_from`` a training starts with; stop it if that is nothing.

    MMEngine loads what fits, which is how a network is fine-tuned with other heads, and only lists
    the rest in the log. See :func:`starting_weights` for the files that are understood.

    Args:
        path: The checkpoint, for messages.

    Attributes:
        summary: What was loaded, in one line; empty before that.
    """

    priority = 'VERY_HIGH'  # an EMAHook reads `state_dict`

    def __init__(self, path: str) -> None:
        self.path, self.summary = path, ''

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the weights where MMEngine looks for them, whatever container the file has.

        Raises:
            CheckpointError: Not one tensor fits the model.
        """
        found = weights_of(checkpoint, self.path)
        model, source = inner_model(runner.model), source_of(checkpoint)
        weights, self.summary, left = starting_weights(model, found, self.path, source)
        before = checkpoint.get('state_dict') or {}
        if weights.keys() != before.keys() or any(
            weights[key] is not before[key] for key in before
        ):
            checkpoint['state_dict'] = weights
        runner.logger.log(logging.WARNING if left else logging.INFO, self.summary)
