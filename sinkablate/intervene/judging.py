"""What an edit costs: a classifier's answers, or a toy's error."""

import torch
from torch import Tensor, nn

from sinkablate.diagnose.model import LoadedModel
from sinkablate.intervene.editor import Judge
from sinkablate.intervene.effects import class_effects
from sinkablate.toys.tasks import ToyTask
from sinkablate.vit.anatomy import classify


def judge_of(loaded: LoadedModel, targets: list[int] | None) -> Judge:
    """The judge of a model; one that neither classifies nor has a task adds nothing.

    Args:
        loaded: The model.
        targets: Class of each image of the plan, where they are known.
    """
    return classifier_judge(loaded.model, targets) if loaded.toy is None else toy_judge(loaded.toy)


def classifier_judge(model: nn.Module, targets: list[int] | None) -> Judge:
    """Return the judge that compares class probabilities; it adds nothing for a model without a classifier."""

    def judge(last: Tensor, _image: Tensor, number: int) -> dict[str, Tensor]:
        logits = classify(model, last)
        return {} if logits is None else class_effects(logits, None if targets is None else targets[number])

    return judge


def toy_judge(task: ToyTask) -> Judge:
    """Squared error of the edited and of the unedited copy on a sequence."""

    def judge(last: Tensor, tokens: Tensor, _number: int) -> dict[str, Tensor]:
        outputs = last[:, last.shape[1] - tokens.shape[1] :]
        error = (task.prediction(tokens, outputs) - task.target(tokens)).square().mean((-2, -1))
        return {"loss": error[:1].expand(len(error) - 1), "loss_edited": error[1:]}

    return judge


def targets_of(known: Tensor | None, numbers: list[int]) -> list[int] | None:
    """Classes of the images of a plan, from those of all pictures."""
    return None if known is None else known[torch.tensor(numbers)].tolist()
