"""Tables of published weights for the documents, on a small registry."""

import pytest

from hybrid_mm.weights import all_weights
from hybrid_mm.zoo import weights_tables

from .test_weights_commands import X, Y

PIPE = """
- Name: z_in1k
  Files:
    - {Page: https://z.org, Layout: ours, Source: readme, Licence: "a | b <c>"}
"""


@pytest.fixture
def known(registry):
    registry(x=X, y=Y, z=PIPE)
    return all_weights()


def link(name):
    return f'[{name}]'


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]


def test_weights_of_a_tree(known):
    """Direct addresses before pages; what is not known is empty."""
    names = ['x-tiny_in1k', 'x-base_in1k', 'x-large_in1k', 'z_in1k']
    text = weights_tables.of_tree([known[n] for n in names], {names[0]: 1, names[1]: 2}, link)
    assert rows(text)[2:] == [
        [
            *('`x-tiny_in1k`', 'automatic', '[x_tiny.pth](https://x.org/a/x_tiny.pth)'),
            *('16.4', '`01234567`'),
            *('Top 1 Accuracy 75.4, Top 5 Accuracy 90.0', 'Apache-2.0', '1 config'),
            '[x-tiny_8xb128_in1k]',
        ],
        [
            *('`x-base_in1k`', 'manual', '[x_base.tar](https://x.org/drive)', '', '', '', ''),
            *('2 configs', ''),
        ],
        ['`x-large_in1k`', 'ours to train', '', '', '', '', '', '', '[x-large_8xb128_in1k]'],
        ['`z_in1k`', 'manual', '[page](https://z.org)', '', '', '', 'a \\| b &lt;c>', '', ''],
    ]


def test_overview(known):
    """Numbers of each case, and every name once in a table of its kind."""
    text = weights_tables.overview(known, link, str.upper)
    counts, *tables = text.split('### ')
    assert [row[0::2] for row in rows(counts)[2:]] == [['automatic', '3'], ['manual', '2'],
        ['ours to train', '1'], ['unpublished', '0']]  # fmt: skip
    assert [row[3] for row in rows(counts)[2:]] == ['0', '0', '0', '1']
    backbones, whole, absent = (rows(table)[2:] for table in tables)
    assert [row[0] for row in backbones] == [f'`{n}`' for n in known if 'upernet' not in n]
    assert [row[:3] for row in whole] == [['`y-tiny_upernet_ade20k`', 'Y', 'unpublished']]
    assert absent == [
        ['`x-large_in1k`', 'readme', '[x-large_8xb128_in1k]'],
        ['`y-tiny_upernet_ade20k`', 'readme', ''],
    ]


def test_layouts():
    found = dict(rows(weights_tables.layouts())[2:])
    assert {'`van`', '`nat`'} < found.keys()
    assert all(found.values())


def test_weights_of_a_page(known):
    """Files in a table; what nobody published below it, with what trains it."""
    text = weights_tables.of_page(
        [known[n] for n in ('x-tiny_in1k', 'x-base_in1k', 'x-large_in1k')],
        lambda name, text: f'[{text}]({name})',
    )
    lines = [row[0] for row in rows(text)]
    assert lines == ['Weights', '---', '`x-tiny_in1k`', '`x-base_in1k`']
    assert '[x_base.tar](https://x.org/drive), download it yourself' in text
    assert text.endswith(
        '\n\nNot published, with the configs that train them: '
        '[`x-large_in1k`](x-large_8xb128_in1k).\n'
    )
    assert 'x.org' not in weights_tables.of_page([known['x-large_in1k']], link_text)


def link_text(name, text):
    return text
