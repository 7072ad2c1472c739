"""Backbones for analyses, built from a config or a dict, with or without weights; their inputs."""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.checkpoints import load_weights, read_checkpoint, source_of, weights_of
from hybrid_mm.convert import convert, detect
from hybrid_mm.errors import UserError
from hybrid_mm.run.config import literal_spec, load_config, without_init_cfg
from hybrid_mm.run.console import progress
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.published import checkpoint_of

__all__ = ['Network', 'features', 'load_network', 'load_networks', 'networks_with_features']

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RANDOM = 'random weights'


@dataclass
class Network:
    """A backbone in eval mode, one map of which is analysed.

    Attributes:
        module: The backbone.
        label: Name in tables and figures.
        weights: File of its weights, or ``RANDOM``.
        mean: Mean of the colours, 0 to 255, that inputs are normalised with.
        std: Their standard deviation.
        bgr: Whether inputs, ``mean`` and ``std`` have the order B, G, R instead of R, G, B.
        stage: Index of the map; -1 is the last.
    """

    module: nn.Module
    label: str
    weights: str = RANDOM
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    bgr: bool = False
    stage: int = -1

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the chosen map (N, C, h, w) of images (N, 3, H, W).

        Raises:
            UserError: The backbone has no such map.
        """
        maps = self.module(images)
        maps = (maps,) if isinstance(maps, Tensor) else tuple(maps)
        if not -len(maps) <= self.stage < len(maps):
            raise UserError(
                f'--stage {self.stage}: {self.label} returns {len(maps)} maps (out_indices of the '
                f'backbone); expected {-len(maps)} to {len(maps) - 1}'
            )
        found = maps[self.stage]
        if not isinstance(found, Tensor) or found.ndim != 4:
            raise UserError(f'{self.label} returns no map (N, C, h, w) at --stage {self.stage}')
        return found

    def normalise(self, image: np.ndarray) -> Tensor:
        """Normalise an image (H, W, 3), uint8, RGB, to an input (3, H, W)."""
        x = torch.from_numpy(np.array(image, np.float32))
        x = (x.flip(2) if self.bgr else x) - torch.tensor(self.mean)
        return (x / torch.tensor(self.std)).permute(2, 0, 1).contiguous()


def _is_dict(model: str) -> bool:
    return model.lstrip().startswith(('dict', '{'))


def default_label(model: str) -> str:
    """Default name of a backbone: that of its config, or its dict."""
    return model if _is_dict(model) else Path(model).stem


def load_network(
    model: str,
    checkpoint: str | None = None,
    label: str | None = None,
    stage: int = -1,
    seed: int = 0,
) -> Network:
    """Build a backbone.

    Args:
        model: Config file of a model with a backbone, or ``dict(type='hybrid_mm.VAN', ...)``.
        checkpoint: Weights of the model or of its backbone, which must fit: a file,
            ``hybrid_mm://NAME``, or 'auto', the published weights of the config.
        label: Name; by default that of the config, or the dict.
        stage: See :class:`Network`.
        seed: Seed of random weights.

    Raises:
        UserError: A file does not exist, the backbone cannot be built, or weights do not fit.
    """
    scope, settings = 'mmengine', {}
    if _is_dict(model):
        backbone = literal_spec(model)
    else:
        cfg = load_config(model)
        backbone = cfg.get('model', {}).get('backbone')
        if backbone is None:
            raise UserError(f'{model} has no model.backbone; expected the config of a network')
        scope = cfg.get('default_scope', 'mmengine')
        settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(ConfigDict(without_init_cfg(backbone))))
    if checkpoint is None:
        if hasattr(module, 'init_weights'):
            logging.disable(logging.INFO)  # MMEngine logs a line per parameter
            module.init_weights()
            logging.disable(logging.NOTSET)
    else:
        if not _is_dict(model):
            checkpoint = checkpoint_of(model, checkpoint)
        loaded = read_checkpoint(checkpoint)
        weights, source = weights_of(loaded, checkpoint), source_of(loaded)
        with suppress(ValueError):  # of several layouts: loading says so
            source = source or detect(weights)
        state = _of_backbone(weights, module)
        load_weights(module, dict(state_dict=state, meta=dict(source=source)), checkpoint)
    module.eval().requires_grad_(False)
    return Network(
        module,
        label or default_label(model),
        checkpoint or RANDOM,
        settings.get('mean') or IMAGENET_MEAN,
        settings.get('std') or IMAGENET_STD,
        bool(settings) and not (settings.get('bgr_to_rgb') or settings.get('to_rgb')),
        stage,
    )


def _of_backbone(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Weights of the backbone in a file of ours, or in a published one."""
    with suppress(ValueError):  # of a layout that has other keys: they are named when it is loaded
        weights = convert(weights)
    prefix = 'backbone.'
    own = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    if own:
        return own
    has_head = any(key.startswith('head.') for key in module.state_dict())
    return {k: v for k, v in weights.items() if has_head or not k.startswith('head.')}


def load_networks(
    models: Sequence[str],
    checkpoints: Sequence[str] | None,
    labels: Sequence[str] | None,
    stage: int = -1,
) -> Iterator[Network]:
    """Build several backbones, one after the other; see :func:`load_network`.

    Args:
        models: Configs or dicts.
        checkpoints: One per model (see :func:`load_network`), '-' for random weights; None for
            random weights for all.
        labels: One per model, all different.
        stage: Index of the map that is analysed.

    Raises:
        UserError: There are not as many checkpoints or labels as models, or a label occurs twice.
    """
    for name, values in (('--checkpoints', checkpoints), ('--labels', labels)):
        if values is not None and len(values) != len(models):
            raise UserError(
                f'{name}: {len(models)} models need as many, got {len(values)}'
                + (" ('-' for random weights)" if values is checkpoints else '')
            )
    labels = labels or [default_label(model) for model in models]
    twice = {label for label in labels if list(labels).count(label) > 1}
    if twice:
        raise UserError(f'several models are called {min(twice)}; name them apart with --labels')
    files = [None if c in ('-', None) else c for c in checkpoints or [None] * len(models)]
    return (
        load_network(*arguments, stage) for arguments in zip(models, files, labels, strict=True)
    )


def read_image(path: str | Path, mode: str = 'RGB'):
    """Read an image with Pillow.

    Raises:
        UserError: The file does not exist or is not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f'{path} cannot be read as an image ({reason})') from error


def stretched(path: str | Path, height: int, width: int) -> np.ndarray:
    """Read an image and resize it (bicubic) to (height, width, 3), ignoring its aspect ratio."""
    from PIL import Image

    return np.asarray(read_image(path).resize((width, height), Image.Resampling.BICUBIC))


def cropped(path: str | Path, resize: int, size: int) -> np.ndarray:
    """Read an image, resize its shorter side (bicubic) and crop the centre (size, size, 3)."""
    from PIL import Image

    image = read_image(path)
    scale = resize / min(image.size)
    width, height = (max(size, round(scale * n)) for n in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def features(
    network: Network,
    files: Sequence[str | Path],
    resize: int = 248,
    size: int = 224,
    batch: int = 16,
    device: str | torch.device = 'cpu',
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Compute the features of images: the global average of the map.

    Args:
        network: Network of the map.
        files: Images.
        resize: Length of the shorter side.
        size: Side of the centre crop.
        batch: Images per batch.
        device: Device of the computation.
        tick: Called after every image.

    Returns:
        (n, C), float32.

    Raises:
        UserError: An image cannot be read, or the features are not finite.
    """
    found = []
    network.module.to(device)
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        images = torch.stack([network.normalise(cropped(f, resize, size)) for f in part])
        with torch.no_grad():
            found.append(network(images.to(device)).float().mean((2, 3)).cpu().numpy())
        for _ in part:
            tick()
    found = np.concatenate(found)
    if not np.isfinite(found).all():
        bad = files[int(np.argmin(np.isfinite(found).all(1)))]
        raise UserError(f'{network.label} gives NaN or infinite features for {bad}')
    return found


def networks_with_features(
    args: argparse.Namespace, files: Sequence[str | Path]
) -> Iterator[tuple[Network, np.ndarray]]:
    """Build one network after the other and compute its features, with a bar on the terminal.

    Args:
        args: Of ``cli.add_network_options`` and ``cli.add_feature_options``, and ``models``.
        files: Images.
    """
    device = torch_device(args.device)
    for network in load_networks(args.models, args.checkpoints, args.labels, args.stage):
        print(f'{network.label}: {network.weights}')
        sizes = args.resize, args.size, args.batch_size
        with progress('images', len(files)) as advance:
            found = features(network, files, *sizes, device, advance)
        yield network, found
