"""Find the vision transformer inside a user's module."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sinkablate.errors import UserError
from sinkablate.vit.anatomy import blocks_of


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers.

    Of a model of Hugging Face's transformers with a head, such as a classifier, return the model without the head.
    """
    if isinstance(model, DataParallel | DistributedDataParallel):
        return unwrap(model.module)
    inner = getattr(model, "_orig_mod", None)
    if hasattr(model, "base_model_prefix") and model.base_model is not model:
        inner = model.base_model
    return unwrap(inner) if isinstance(inner, nn.Module) else model


def find_backbone(model: nn.Module, name: str | None = None) -> nn.Module:
    """Return the vision transformer of a module, without wrappers.

    Args:
        model: A vision transformer, or a module that has one, such as a LightningModule.
        name: The submodule, such as `model.encoder`; None tries the attributes `backbone` and `model`, then the module
            itself.

    Raises:
        UserError: There is no such submodule, or no vision transformer was found.
    """
    model = unwrap(model)
    if name is not None:
        try:
            return unwrap(model.get_submodule(name))
        except AttributeError:
            raise UserError(f"backbone={name}: {type(model).__name__} has no such submodule") from None
    for candidate in (getattr(model, "backbone", None), getattr(model, "model", None), model):
        if isinstance(candidate, nn.Module) and _has_blocks(unwrap(candidate)):
            return unwrap(candidate)
    raise UserError(
        f"backbone: {type(model).__name__} and its .backbone and .model are not vision transformers; "
        "name the submodule, as in backbone='model.encoder'"
    )


def _has_blocks(model: nn.Module) -> bool:
    try:
        return bool(blocks_of(model))
    except UserError:
        return False
