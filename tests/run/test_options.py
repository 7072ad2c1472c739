"""Options that the tools share."""

import pytest
import torch

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.devices import torch_device


def test_amp_and_tracking_before_the_config():
    parser = options.parser('x')
    parser.add_argument('config')
    options.add_run_options(parser)
    options.add_tracking_options(parser)
    for line, amp, wandb in (
        (['a.py'], None, None),
        (['--amp', 'a.py'], 'auto', None),
        (['--amp', 'bfloat16', 'a.py'], 'bfloat16', None),
        (['a.py', '--amp'], 'auto', None),
        (['--wandb', 'a.py', '--amp', 'float16'], 'float16', 'hybrid_mm'),
        (['--wandb', 'mine', 'a.py'], None, 'mine'),
    ):
        args = parser.parse_args(line)
        assert (args.config, args.amp, args.wandb) == ('a.py', amp, wandb)
        assert (args.launcher, args.seed, args.local_rank) == ('none', None, 0)
    args = parser.parse_args(['a.py', '--cfg-options', 'a.b=[1,2]', 'c=(x,y)', 'd=1e-4'])
    assert args.cfg_options == {'a.b': [1, 2], 'c': ('x', 'y'), 'd': 1e-4}


def test_device():
    assert torch_device('cpu') == torch.device('cpu')
    with pytest.raises(UserError, match='--device nonsense is not usable here'):
        torch_device('nonsense')
