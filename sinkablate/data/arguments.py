"""Checks of the arguments of the data module that concern more than one group of keys."""

from collections.abc import Mapping

from sinkablate.config import AugmentConfig, ImageConfig, SourceConfig, ViewsConfig, height_and_width, size_text
from sinkablate.errors import UserError, require_at_least
from sinkablate.process.cpus import usable_cpus


def check_arguments(
    source: SourceConfig,
    image: ImageConfig,
    augment: AugmentConfig,
    views: ViewsConfig,
    numbers: Mapping[str, int | str],
) -> None:
    """Check the arguments of `ImageData`.

    Args:
        source: As in `ImageData`.
        image: As in `ImageData`.
        augment: As in `ImageData`.
        views: As in `ImageData`.
        numbers: `batch_size`, `eval_batch_size`, `num_workers` and `seed`; a text (`auto`) is not checked.

    Raises:
        UserError: A number is out of range, or two groups contradict each other.
    """
    given = {name: value for name, value in numbers.items() if isinstance(value, int)}
    for name, value in given.items():
        require_at_least(value, 1 if name.endswith("batch_size") else 0, f"data.{name}")
    max_workers = max(64, 4 * usable_cpus())
    if given.get("num_workers", 0) > max_workers:
        raise UserError(
            f"data.num_workers={given['num_workers']}: too many for the {usable_cpus()} CPUs available; use at most "
            f"{max_workers}"
        )
    shorter = min(height_and_width(image.size))
    if views.count > 1 and views.blur_size // 2 >= shorter:
        raise UserError(
            f"data.views.blur_size={views.blur_size}: too wide for images of {size_text(image.size)} pixels "
            f"(data.image.size); use at most {2 * shorter - 1}"
        )
    if source.reader == "stream" and augment.aug_repeats > 1:
        raise UserError(
            f"data.augment.aug_repeats={augment.aug_repeats}: a stream reads each image once; set "
            "data.source.reader=indexed, or aug_repeats=1"
        )
