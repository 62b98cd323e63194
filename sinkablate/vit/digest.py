"""A hash of the weights of a model, by which results of different weights under one name are told apart."""

import hashlib

import torch
from torch import nn


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and values of a model's parameters and persistent buffers."""
    content = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()
