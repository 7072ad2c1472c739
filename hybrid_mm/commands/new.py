"""What ``python -m hybrid_mm new`` does once its arguments are read."""

import argparse
import shlex

from hybrid_mm.errors import printable
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.zoo import new_config
from hybrid_mm.zoo.heads import check_head
from hybrid_mm.zoo.new_backbone import find_backbone
from hybrid_mm.zoo.plan import make_plan
from hybrid_mm.zoo.user_data import read_data


def run(args: argparse.Namespace, command: str) -> None:
    """Write a config for a data set; ``command`` is the line that its head repeats."""
    new_config.check_out(args.out, args.force)
    data = read_data(
        args.data,
        args.train,
        args.val,
        args.holdout,
        args.classes,
        args.ignore_index,
        args.empty_classes,
        args.channels,
    )
    check_head(args.head, data)
    new_config.check_out(args.out, args.force, data, args.checkpoint)
    channels = data.channels.number if data.channels else 3
    backbone = find_backbone(args.backbone, args.head, args.checkpoint, channels)
    start = backbone.start
    scale = args.scale and (max(args.scale), min(args.scale))
    pretrained = start.checkpoint is not None
    plan = make_plan(data, args.batch_size, scale, pretrained, args.iterations, args.epochs)
    files = new_config.write_config(
        args.out, data, args.head, backbone, plan, command, start.checkpoint, args.force
    )
    print(new_config.summary(data, backbone, plan))
    print(printable(f'the backbone starts from {start.text}'))
    root = installed_configs().parent
    train = 'tools/train.py' if root.name != '.mim' else shlex.quote(f'{root}/tools/train.py')
    following = f'python {train} {shlex.quote(args.out)} --dry-run'
    print(printable(f'wrote {", ".join(files)}; next: {following}'))
