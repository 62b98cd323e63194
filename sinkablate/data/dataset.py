"""The dataset over records that can be read in any order: embedded images, local tar shards and folders."""

from torch.utils.data import Dataset

from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.samplers import Draw, preserve_random_state
from sinkablate.data.samples import Preparation, Records, Sample

_MAX_TRIES = 100


class IndexedImages(Dataset[Sample]):
    """Prepared samples of a set, indexed by `Draw`.

    When unreadable samples are skipped, training replaces each with the next readable sample of the set, for any number
    of ranks, so that batches keep their size; evaluation leaves it out.

    Args:
        records: The encoded samples.
        prepare: Turns an encoded sample into a tensor.
        on_error: What happens at an unreadable sample.
        replace: Whether a skipped sample is replaced (training) or left out (evaluation).
    """

    def __init__(self, records: Records, prepare: Preparation, on_error: ErrorPolicy, *, replace: bool) -> None:
        self.records, self.prepare, self.on_error = records, prepare, on_error
        self.tries = _MAX_TRIES if replace else 1

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> Sample:
        """Read one sample.

        Raises:
            DataError: The sample cannot be read, and no other may replace it.
        """
        samples = self.__getitems__([draw])
        if not samples:
            raise DataError(f"sample {draw.sample} cannot be read")
        return samples[0]

    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """Read a batch of samples; torch's fetcher calls this method.

        Raises:
            DataError: A sample cannot be read, and errors are not skipped.
        """
        with preserve_random_state():
            samples = [self._load(Draw(*draw)) for draw in draws]
        return [sample for sample in samples if sample is not None]

    def _load(self, draw: Draw) -> Sample | None:
        for step in range(self.tries):
            try:
                return self.prepare(self.records[(draw.sample + step) % len(self)], draw)
            except DataError as error:
                self.on_error.handle(error)
                last_error = error
        if self.tries > 1:
            raise DataError(f"{_MAX_TRIES} samples in a row cannot be read; the last error: {last_error}")
        return None
