"""Classes that a config names, and their arguments."""

from hybrid_mm.run.registered import arguments


class Inner:
    def __init__(self, width=1, depth=2):
        pass


class Middle(Inner):
    def __init__(self, part=None, width=5, **kwargs):
        super().__init__(width=width, **kwargs)


def test_defaults_are_those_of_the_class_itself():
    assert arguments(Middle) == dict(width=5, depth=2, part=None)
    assert arguments(Inner) == dict(width=1, depth=2)

    def function(a, b=3, *args, **kwargs):
        pass

    assert set(arguments(function)) == {'a', 'b'} and arguments(function)['b'] == 3
