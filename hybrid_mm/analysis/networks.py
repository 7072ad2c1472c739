"""Backbones for analyses, built from a config or a dict, with or without weights; their inputs."""

import argparse
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.analysis.feature_maps import (
    maps_of,
    return_maps,
    run_network,
    sizes_to_try,
)
from hybrid_mm.benchmarks.core import is_out_of_memory
from hybrid_mm.checkpoints import check_exists, load_weights, read_checkpoint, source_of, weights_of
from hybrid_mm.convert import convert, detect
from hybrid_mm.errors import UserError, plain_text, warn
from hybrid_mm.run.config import (
    TASKS,
    literal_spec,
    load_config,
    require_library,
    without_init_cfg,
)
from hybrid_mm.run.console import progress
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.explain import explain
from hybrid_mm.run.published import AUTO, checkpoint_of
from hybrid_mm.run.registered import nearest_type

__all__ = [
    'Network',
    'build_model',
    'build_network',
    'features',
    'load_network',
    'network_of',
    'network_with_features',
]

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RANDOM = 'random weights'
SCOPES = 'hybrid_mm', 'mmdet', 'mmseg', 'mmpretrain'
# where the configs of models have the network of the image, outside of `backbone`
_PARTS = 'backbone', 'image_encoder', 'vision_backbone', 'vision_encoder', 'visual_encoder'


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
        maps = maps_of(run_network(self.module, images), tuple(images.shape[-2:]))
        if not maps:
            raise UserError(f'{self.label} returns no feature map of its images')
        if not -len(maps) <= self.stage < len(maps):
            raise UserError(
                f'--stage {self.stage}: {self.label} returns {len(maps)} maps (out_indices of the '
                f'backbone); expected {-len(maps)} to {len(maps) - 1}'
            )
        return maps[self.stage]

    def accepted_size(self, height: int, width: int) -> tuple[int, int]:
        """Find the size of images that the network takes: this one, or else one like it.

        Raises:
            Exception: What the network raises at this size, if it takes none of the others.
        """
        device = next((p.device for p in self.module.parameters()), torch.device('cpu'))

        def attempt(size: tuple[int, int]) -> None:
            with torch.no_grad():
                self(torch.zeros(1, 3, *size, device=device))

        return accepted_size(attempt, self.module, (height, width), self.label)

    def normalise(self, image: np.ndarray) -> Tensor:
        """Normalise an image (H, W, 3), uint8, RGB, to an input (3, H, W)."""
        return normalised(image, self.mean, self.std, self.bgr)


def normalised(image: np.ndarray, mean: Sequence[float], std: Sequence[float], bgr: bool) -> Tensor:
    """Normalise an image (H, W, 3), uint8, RGB, to (3, H, W); see :class:`Network`."""
    x = torch.from_numpy(np.array(image, np.float32))
    x = (x.flip(2) if bgr else x) - torch.tensor(mean)
    return (x / torch.tensor(std)).permute(2, 0, 1).contiguous()


def is_dict(model: str) -> bool:
    """Whether a model is named by the dict of a backbone, not by a config."""
    return model.lstrip().startswith(('dict', '{'))


def default_label(model: str) -> str:
    """Default name of a model: that of its config; of a dict its type and arguments."""
    if not is_dict(model):
        return Path(model).stem
    spec = literal_spec(model)
    kind = str(spec.pop('type'))
    return f'{kind}({", ".join(f"{key}={value}" for key, value in spec.items())})' if spec else kind


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
    scope, settings = None, {}
    if is_dict(model):
        backbone = literal_spec(model)
    else:
        cfg = load_config(model)
        backbone = _network_of(cfg.get('model'))
        if backbone is None:
            raise UserError(f'{model} has no model.backbone; expected the config of a network')
        scope = cfg.get('default_scope') or 'mmengine'
        settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    torch.manual_seed(seed)
    with quiet():
        module = revert_sync_batchnorm(
            build_network(without_pretrained(without_init_cfg(backbone)), scope)
        )
    if checkpoint is None:
        if hasattr(module, 'init_weights'):
            with quiet():
                module.init_weights()
    else:
        if not is_dict(model):
            checkpoint = checkpoint_of(model, checkpoint)
        loaded = read_checkpoint(checkpoint)
        weights, source = weights_of(loaded, checkpoint), source_of(loaded)
        with suppress(ValueError):  # of several layouts: loading says so
            source = source or detect(weights)
        state = _of_backbone(weights, module)
        load_weights(module, dict(state_dict=state, meta=dict(source=source)), checkpoint)
    module.eval()  # whose result is None in networks that override train() without one
    module.requires_grad_(False)
    return_maps(module)
    return Network(
        module,
        label or default_label(model),
        checkpoint or RANDOM,
        settings.get('mean') or IMAGENET_MEAN,
        settings.get('std') or IMAGENET_STD,
        bool(settings) and not (settings.get('bgr_to_rgb') or settings.get('to_rgb')),
        stage,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Build what MMEngine and its siblings log and print a line per parameter of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; of those that are no mistake of a user, its name too."""
    known = plain_text(error) if isinstance(error, UserError) else explain(error)
    lines = [line.strip() for line in (known or plain_text(error)).splitlines() if line.strip()]
    text = ' '.join(lines[: 2 if known else 1])
    return text if known else f'{type(error).__name__}: {text}'.rstrip(': ')


def accepted_size(
    attempt: Callable[[tuple[int, int]], object],
    module: nn.Module,
    size: tuple[int, int],
    label: str,
    own: Sequence[tuple[int, int]] = (),
) -> tuple[int, int]:
    """Find a size of images that a network takes: this one, or else one like it, with a warning.

    Args:
        attempt: Runs the network on images of a size.
        module: The network, for the sizes that it was made for.
        size: The size that is wanted.
        label: Name of the network.
        own: Sizes that it is known to be used with.

    Raises:
        Exception: What the network raises at this size, if it takes none of the others.
    """
    refusal: Exception | None = None
    for other in dict.fromkeys((size, *own, *sizes_to_try(module, size))):
        try:
            attempt(other)
        except UserError:
            raise
        except Exception as error:  # whatever a network says of a size
            if is_out_of_memory(error):
                raise
            refusal = refusal or error
            continue
        if refusal is not None:
            taken, wanted = (f'{height} x {width}' for height, width in (other, size))
            warn(f'{label} takes {taken}, not {wanted} ({one_line(refusal)})')
        return other
    assert refusal is not None
    raise refusal


def without_pretrained(node: Any) -> Any:
    """Copy of a model's config that names no file of weights; how it begins else is left."""
    if isinstance(node, dict):
        found = type(node)()
        for key, value in node.items():
            if key == 'pretrained':  # a file, or whether to download one
                if isinstance(value, bool):
                    found[key] = False
            elif not (key == 'init_cfg' and _is_pretrained(value)):
                found[key] = without_pretrained(value)
        return found
    if isinstance(node, (list, tuple)):
        return type(node)(without_pretrained(item) for item in node if not _is_pretrained(item))
    return node


def _is_pretrained(init_cfg: Any) -> bool:
    """Whether this is the ``init_cfg`` of a file."""
    if not isinstance(init_cfg, dict):
        return False
    kind = init_cfg.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.endswith('Pretrained')


class _Inner(nn.Module):
    """Features of a classifier of MMPretrain that wraps a model of timm or Transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, 'model', model)

    def forward(self, images: Tensor) -> Any:
        for name in ('forward_features', 'base_model', 'extract_feat'):
            if hasattr(self.model, name):
                return getattr(self.model, name)(images)
        return self.model(images)


def _network_of(model: Any) -> dict[str, Any] | None:
    """Config of the network of the image in that of a model, or None."""
    queue = [model]
    while queue:
        node = queue.pop(0)
        if not isinstance(node, dict):
            continue
        for part in _PARTS:
            if isinstance(node.get(part), dict) and 'type' in node[part]:
                return node[part]
        if str(node.get('type')).endswith(('TimmClassifier', 'HuggingFaceClassifier')):
            return node
        queue += node.values()
    return None


def build_network(spec: dict[str, Any], scope: str | None = None) -> nn.Module:
    """Build a network; without a scope, of the first package that has one which takes the spec.

    Args:
        spec: ``backbone`` of a config: ``type`` and arguments.
        scope: Scope in whose registry ``type`` is looked up, such as 'mmdet'; None tries all.

    Raises:
        UserError: No package has a network of this type.
    """
    kind = spec['type']
    if scope is not None or not isinstance(kind, str) or '.' in kind:
        own = kind.split('.')[0] if isinstance(kind, str) and '.' in kind else None
        if scope is None and own in SCOPES:  # for types inside of it
            scope = own
        with DefaultScope.overwrite_default_scope(scope or 'mmengine'):
            module = MODELS.build(ConfigDict(spec))
        name = kind if isinstance(kind, str) else kind.__name__
        return _Inner(module) if name.endswith(('TimmClassifier', 'FaceClassifier')) else module
    scopes = [name for name in SCOPES if MODELS.get(f'{name}.{kind}') is not None]
    if not scopes:
        raise UserError(
            f'type {kind!r} is not a network of {", ".join(SCOPES)}{nearest_type(MODELS, kind)}'
        )
    refusal: Exception | None = None
    for name in scopes:
        try:
            module = build_network({**spec, 'type': f'{name}.{kind}'}, None)
        except (TypeError, KeyError, AssertionError) as error:  # other arguments
            refusal = refusal or error
            continue
        if len(scopes) > 1:
            others = ', '.join(f'{other}.{kind}' for other in scopes if other != name)
            warn(f'type {kind!r} is {name}.{kind} here; there are {others} as well')
        return module
    assert refusal is not None
    raise refusal


def build_model(cfg: Config, initialise: bool = False) -> nn.Module:
    """Build the model of a config without pretrained weights and with batch norms of one process.

    Args:
        cfg: The config.
        initialise: Draw the initial weights as a training would, instead of those of torch.

    Raises:
        UserError: The package that the model belongs to is not installed.
    """
    require_library(cfg)
    model = without_pretrained(cfg.model)
    if cfg.get('data_preprocessor') and not model.get('data_preprocessor'):
        model.data_preprocessor = cfg.data_preprocessor
    scope = cfg.get('default_scope') or 'mmengine'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope), quiet():
        module = revert_sync_batchnorm(MODELS.build(ConfigDict(model)))
        if initialise:
            try:
                module.init_weights()
            except AttributeError as error:  # SAN of MMSegmentation cannot begin without its file
                warn(f'some initial weights are those of torch ({one_line(error)})')
    return module


def task_of_model(module: nn.Module) -> str:
    """Task of a model, by the package that its class comes from or is derived from.

    Raises:
        UserError: It is of none.
    """
    for base in type(module).__mro__:
        task = TASKS.get(base.__module__.split('.')[0])
        if task:
            return task
    raise UserError(
        f'{type(module).__name__} is no model of {", ".join(TASKS)}; name its backbone as '
        "dict(type='...', ...)"
    )


def _of_backbone(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Weights of the backbone in a file of its own layout, of ours, or in a published one."""
    readings = [{key.removeprefix('module.'): value for key, value in weights.items()}]
    with suppress(ValueError):  # of a layout that has other keys: they are named when it is loaded
        readings.append(convert(weights))
    own, prefix, state = module.state_dict(), 'backbone.', {}
    for reading in readings:
        inner = {k[len(prefix) :]: v for k, v in reading.items() if k.startswith(prefix)}
        has_head = any(key.startswith('head.') for key in own)
        rest = {k: v for k, v in reading.items() if has_head or not k.startswith('head.')}
        state = inner or rest
        if state.keys() == own.keys():
            break
    return state


def labels_and_files(
    models: Sequence[str], checkpoints: Sequence[str] | None, labels: Sequence[str] | None
) -> tuple[Sequence[str], list[str | None]]:
    """Names of models, and their checkpoints, None for random weights.

    Raises:
        UserError: There are not as many checkpoints or labels as models, a label occurs twice, or a
            file does not exist.
    """
    for name, values in (('--checkpoints', checkpoints), ('--labels', labels)):
        if values is not None and len(values) != len(models):
            raise UserError(
                f'{name}: {len(models)} models need as many, got {len(values)}'
                + (" ('-' for random weights)" if values is checkpoints else '')
            )
    labels = [' '.join(label.split()) for label in labels or map(default_label, models)]
    if '' in labels:
        raise UserError('--labels: a name is empty')
    twice = {label for label in labels if list(labels).count(label) > 1}
    if twice:
        raise UserError(f'several models are called {min(twice)}; name them apart with --labels')
    files = [None if c in ('-', None) else c for c in checkpoints or [None] * len(models)]
    for model, file in zip(models, files, strict=True):  # before the first one is studied
        if not is_dict(model) and not Path(model).is_file():
            load_config(model)
        if file is not None and file != AUTO and '://' not in file:
            check_exists(file)
    return labels, files


def network_of(args: argparse.Namespace, index: int) -> Network:
    """Build a network of ``options.add_network_options``; see :func:`load_network`.

    Args:
        args: Options, and ``models``.
        index: Number of the network.
    """
    labels, files = labels_and_files(args.models, args.checkpoints, args.labels)
    network = load_network(args.models[index], files[index], labels[index], args.stage)
    network.module.to(torch_device(args.device))
    return network


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


def network_with_features(
    args: argparse.Namespace, index: int, files: Sequence[str | Path]
) -> tuple[Network, np.ndarray]:
    """Build a network and compute its features of images, with a bar on the terminal.

    Args:
        args: Of ``options.add_network_options`` and ``options.add_feature_options``, and
            ``models``.
        index: Number of the network among ``models``.
        files: Images.
    """
    network = network_of(args, index)
    print(f'{network.label}: {network.weights}')
    side, _ = network.accepted_size(args.size, args.size)
    resize = round(args.resize * side / args.size)
    with progress('images', len(files)) as advance:
        device = torch_device(args.device)
        return network, features(network, files, resize, side, args.batch_size, device, advance)
