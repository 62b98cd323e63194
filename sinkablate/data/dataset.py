"""The dataset over records that can be read in any order: tar indexes and folders."""

from torch.utils.data import Dataset

from sinkablate.data.layout import DataError
from sinkablate.data.samplers import Draw, kept_random_state
from sinkablate.data.samples import ErrorPolicy, Preparation, Records, Sample

_TRIES = 100


class IndexedImages(Dataset[Sample]):
    """Prepared samples of a set, addressed by `Draw`.

    When unreadable samples are skipped, training takes the next readable one of the set in their place, whatever the
    number of ranks, so batches keep their size; evaluation leaves them out.

    Args:
        records: The encoded samples.
        prepare: What is done to each.
        faults: What an unreadable one does.
        replace: Training's way of skipping, not evaluation's.
    """

    def __init__(self, records: Records, prepare: Preparation, faults: ErrorPolicy, *, replace: bool) -> None:
        self.records, self.prepare, self.faults = records, prepare, faults
        self.tries = _TRIES if replace else 1

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> Sample:
        """One sample.

        Raises:
            DataError: It cannot be read, or it is skipped and nothing may take its place.
        """
        samples = self.__getitems__([draw])
        if not samples:
            raise DataError(f"sample {draw.sample} is unreadable")
        return samples[0]

    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """A batch of samples, as torch's fetcher asks for them.

        Raises:
            DataError: One cannot be read and is not to be skipped.
        """
        with kept_random_state():
            samples = [self._load(Draw(*draw)) for draw in draws]
        return [sample for sample in samples if sample is not None]

    def _load(self, draw: Draw) -> Sample | None:
        for step in range(self.tries):
            try:
                return self.prepare(self.records[(draw.sample + step) % len(self)], draw)
            except DataError as error:
                self.faults.report(error)
                last = error
        if self.tries > 1:
            raise DataError(f"{_TRIES} samples in a row are unreadable, the last one {last}")
        return None
