"""Give any vision transformer registers without training."""

from copy import deepcopy
from itertools import islice

import torch
from torch import nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import RegisterNeuronConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.register_neurons import find_register_neurons
from sinkablate.errors import UserError, require_at_least
from sinkablate.vit.find import unwrap
from sinkablate.vit.test_time_registers import add_registers, require_supported


@checked
def add_test_time_registers(
    model: nn.Module,
    images: Images = "builtin",
    *,
    count: int = 1,
    transform: Transform | None = None,
    neurons: RegisterNeuronConfig | None = None,
    batch_size: int = 16,
) -> nn.Module:
    """Return a copy of a vision transformer with test-time registers (arXiv 2506.08010).

    The MLP neurons that write the outlier tokens are found on some images. In the copy, tokens that are zero before
    the first block follow the class tokens, and take over the activations of these neurons from the patches. They
    count as registers everywhere in this package, and a timm model leaves them out where it pools patches. The
    weights are those of the model, which is left as it was.

    Args:
        model: A vision transformer without registers, from timm, Hugging Face's transformers or `create_model`.
        images: The images on which the neurons are found, as for `measure`.
        count: Number of registers; all get the same activations.
        transform: Turns a PIL image into a tensor (C, H, W), as for `measure`.
        neurons: How many neurons are found and where, or random ones as a control. Leave its `images` out.
        batch_size: Number of images per forward pass.

    Returns:
        The copy. Its attribute `register_neurons` holds the neurons and how they were found.

    Raises:
        UserError: An argument cannot be used, or the model cannot have such registers.

    Example::

        model = timm.create_model("vit_large_patch14_dinov2.lvd142m", pretrained=True)
        treated = sa.add_test_time_registers(model, "photos", neurons=sa.RegisterNeuronConfig(top=50))
        print(treated.register_neurons.sentence)
        print(sa.measure(treated, "photos").summary["counts"]["adaptive"])
    """
    require_at_least(count, 1, "count")
    config = neurons or RegisterNeuronConfig()
    if config.images is not None:
        raise UserError("neurons.images: name the images as the second argument of add_test_time_registers")
    model = unwrap(model)
    require_supported(model)
    batches = list(islice(batches_of(images, model, transform=transform, batch_size=batch_size), config.limit))
    pixels = torch.cat(batches)[: config.limit] if batches else torch.empty(0)
    found_neurons = find_register_neurons(model, lambda: pixels.split(batch_size), config)
    treated = deepcopy(model)
    add_registers(treated, count, found_neurons.by_block())
    treated.register_neurons = found_neurons  # type: ignore[assignment]
    return treated
