"""Base class of the wrappers of data sets."""

from typing import Any


class DatasetWrapper:
    """Wrapper whose missing attributes are those of ``self.dataset``."""

    def __getattr__(self, name: str) -> Any:
        # copying and unpickling look these up before the data set is set
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)
