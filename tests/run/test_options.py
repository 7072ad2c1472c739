"""Options that the tools share."""

import pytest
import torch
from mmengine.config import DictAction

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


@pytest.mark.parametrize(
    'text',
    [
        *('1', '-2.5e-3', 'true', 'False', 'None', 'nan_', 'a b', '"x"', '', '[]', '()', '[1]'),
        *('(1,)', '1,2', 'a,', '[a, (1, 2), [b]]', '[(1,2),(3,4)]', 'a,[b,c],d', '[a,,b]'),
        *('[None,True]', 'dict(a=1)', '(a', 'C:/x=y', "['a','b']", '[[1,2],[3,[4]]]', '1_000'),
    ],
)
def test_values_are_read_as_mmengine_reads_them(text):
    parser = options.parser('x')
    options.add_config_options(parser)
    found = parser.parse_args(['--cfg-options', f'a.b={text}']).cfg_options['a.b']
    expected = DictAction._parse_iterable(text)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize('text', ['[a,b', '[a,b)]', 'dict(a=1,b=2)', 'a],[b'])
def test_values_that_cannot_be_read(text, capsys):
    parser = options.parser('x')
    options.add_config_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', f'a={text}'])
    assert f'--cfg-options: cannot read a={text}' in capsys.readouterr().err
