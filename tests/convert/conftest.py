"""The contract of all converters."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from hybrid_mm.convert import SOURCES, convert, detect


@torch.no_grad()
def fill(model):
    """Draw all parameters and buffers: nothing is zero, one, or equal to another."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 2, generator=generator)
        else:
            tensor.random_(2, 10**6, generator=generator)
    return model


def load(model, state):
    """Into a network of ours by its own rules, into any other one as torch does."""
    if hasattr(model, 'load_strictly'):
        model.load_strictly(state, 'the file')
    else:
        model.load_state_dict(state, strict=True)
    return model.state_dict()


@pytest.fixture
def drawn():
    return fill


@pytest.fixture
def round_trip():
    """The contract: every value arrives, strangers are named, and so are wrong shapes."""

    def check(make, official, source, *, strange='strange.weight', prefix='', extra=None):
        """Give the random network, its official weights and the converted ones.

        Args:
            make: Makes a network of ours.
            official: Gives the official state dict of such a network.
            source: Name of the layout.
            strange: A key that is not in the layout, as the error names it.
            prefix: Prefix of our keys and of the strange one in a whole detector.
            extra: Official tensors of which ours has none.
        """
        model = fill(make())
        own, state = model.state_dict(), official(model)
        whole = state | (extra or {})
        assert detect(whole) == source
        bare = {k.removeprefix('backbone.'): v for k, v in whole.items()}
        keys = set(whole if SOURCES[source].whole else bare)
        assert [name for name, other in SOURCES.items() if other.matches(keys)] == [source]
        out = convert(state | (extra or {}))
        assert out.keys() == {f'{prefix[1]}{key}' if prefix else key for key in own}
        bare = {key.removeprefix(prefix[1]) if prefix else key: out[key] for key in out}
        assert [key for key in own if not torch.equal(bare[key], own[key])] == []
        assert detect(out) is None
        # a file in our layout stays as it is, and a new network takes all of it
        again = convert(out)
        assert all(again[key] is out[key] for key in out)
        found = load(make(), bare)
        assert [key for key in own if not torch.equal(found[key], own[key])] == []

        with pytest.raises(ValueError, match=f'do not know the key {re.escape(repr(strange))}'):
            convert(state | {(prefix[0] if prefix else '') + strange: torch.ones(1)}, source)
        kept = {id(value): key for key, value in state.items()}
        fits = (
            k
            for k, v in bare.items()
            if id(v) in kept and v.ndim > 1 and v.shape[0] != v.shape[1] and k.endswith('weight')
        )
        key = next(fits, None)
        if key is None:  # all tensors are turned
            return model, state, out
        wrong = state | {kept[id(bare[key])]: bare[key].transpose(0, 1)}
        wrong = {k.removeprefix(prefix[1]) if prefix else k: v for k, v in convert(wrong).items()}
        with pytest.raises((ValueError, RuntimeError), match=re.escape(key)):
            load(make(), wrong)
        return model, state, out

    return check


class StoredHeads:
    """Cases of heads of other libraries, which ``tools/dev/peer_heads.py`` writes."""

    def __init__(self):
        root = Path(__file__).resolve().parents[2]
        self.folder = root / 'tests/convert/data/heads'
        spec = importlib.util.spec_from_file_location(
            'peer_cases_of_heads', root / 'tools/dev/peer_cases.py'
        )
        self.tools = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self.tools  # where dataclasses look for it
        spec.loader.exec_module(self.tools)

    def case(self, source, name):
        return json.loads((self.folder / f'{source}.json').read_text())[name]

    def drawn(self, name, shape):
        """Values as they are in a case, in single precision."""
        return self.tools.drawn(name, shape).float()

    def state(self, source, name):
        """Weights of a case under the names of the library."""
        tensors = self.case(source, name)['tensors']
        # counters of batch norms are scalars
        return {
            key: self.drawn(key, shape)
            if not key.endswith('num_batches_tracked')
            else torch.tensor(0)
            for key, shape in tensors.items()
        }

    def check(self, outputs, expected):
        """Compare outputs with those of the library at the places that are stored."""
        assert [list(x.shape)[-len(s) :] for x, (s, _) in zip(outputs, expected, strict=True)] == [
            shape for shape, _ in expected
        ]
        for output, (_, values) in zip(outputs, expected, strict=True):
            found = torch.tensor(self.tools.places(output))
            torch.testing.assert_close(found, torch.tensor(values), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='session')
def heads():
    return StoredHeads()
