"""Transfer of trained weights to a wider network."""

from collections.abc import Mapping

import torch

TRANSPOSED, JOINED = ".transpconvs.", "decoder.stages."
"""Parts of layer names: input channels come first; two stages are concatenated."""


def widened(
    narrow: Mapping[str, torch.Tensor], wide: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return weights that keep the narrow network's output.

    New channels keep their initial weights, so they can learn immediately. Channels of the narrow
    network do not read them yet.

    Args:
        narrow: weights of a `PlainConvUNet`, by layer name.
        wide: initial weights of one with the same layers and at least as many channels.

    Raises:
        ValueError: the wide network has different layers or fewer channels.
    """
    if narrow.keys() != wide.keys():
        raise ValueError("different layers")
    return {name: _placed(name, narrow[name], fresh) for name, fresh in wide.items()}


def _placed(name: str, known: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    if (
        known.dim() != fresh.dim()
        or known.shape[2:] != fresh.shape[2:]
        or any(map(int.__gt__, known.shape, fresh.shape))
    ):
        raise ValueError(f"{name} is not wider")
    made = fresh.clone()
    if known.dim() == 1:
        made[: len(known)] = known
        return made
    first = 0 if TRANSPOSED not in name else 1
    parts = 2 if name.startswith(JOINED) and ".convs.0." in name else 1
    out, into = (known.shape[first], known.shape[1 - first])
    places = torch.cat(
        [
            torch.arange(into // parts) + part * (fresh.shape[1 - first] // parts)
            for part in range(parts)
        ]
    )
    seen, source = made.movedim(first, 0), known.movedim(first, 0)  # views
    seen[:out] = 0
    seen[:out, places] = source
    return made
