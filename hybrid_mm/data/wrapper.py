"""What wrappers of data sets share."""

from typing import Any


class DatasetWrapper:
    """Wrapper that hands on what it does not have itself to ``self.dataset``."""

    def __getattr__(self, name: str) -> Any:
        # copying and unpickling ask for these before there is a data set
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)
