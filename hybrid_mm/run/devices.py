"""The device of ``--device``."""

import torch

from hybrid_mm.errors import UserError


def torch_device(name: str | None) -> torch.device:
    """Device of ``--device``; by default the first GPU if there is one.

    Raises:
        UserError: It cannot be used here.
    """
    if name is None:
        return torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == 'cuda' and device.index is not None:
            torch.cuda.set_device(device)  # events and Triton's kernels go to the current one
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f'--device {name} is not usable here: {reason}') from error
    return device
