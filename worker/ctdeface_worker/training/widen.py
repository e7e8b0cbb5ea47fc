"""Gives trained weights to a wider network of the same kind, which then begins with the same answers."""

from collections.abc import Mapping

import torch

TRANSPOSED, JOINED = ".transpconvs.", "decoder.stages."
"""Layers of a U-Net whose weights list the channels that come in first; whose incoming channels are two stages' side by side."""


def widened(
    narrow: Mapping[str, torch.Tensor], wide: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return weights for the wide network, which computes what the narrow one does; its new channels can learn at once.

    They keep their fresh weights, and no channel that the narrow network has reads them yet.

    Args:
        narrow: weights of a `PlainConvUNet`, by the names of its layers.
        wide: fresh weights of one with the same layers and at least as many channels in each.

    Raises:
        ValueError: they have other layers, or fewer channels.
    """
    if narrow.keys() != wide.keys():
        raise ValueError("other layers")
    return {name: _placed(name, narrow[name], fresh) for name, fresh in wide.items()}


def _placed(name: str, known: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    if (
        known.dim() != fresh.dim()
        or known.shape[2:] != fresh.shape[2:]
        or any(map(int.__gt__, known.shape, fresh.shape))
    ):
        raise ValueError(f"{name} is no wider")
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
