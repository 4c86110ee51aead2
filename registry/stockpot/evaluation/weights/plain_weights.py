"""A recipe's weights by its definition, without haste: what the hot swap is held against.

Nothing here is shared with `stockpot.evaluation.weights.live_module` but the list of which tensor goes where.
"""

import torch
from torch import Tensor, nn

from stockpot.entities import Recipe, TensorSpec, short
from stockpot.errors import Incompatible
from stockpot.evaluation.weights.module_weights import placement
from stockpot.ports import Checkpoints
from stockpot.soup.refusals import misfit, overflow, require_no_overlay


def put_plainly(module: nn.Module, recipe: Recipe, checkpoints: Checkpoints) -> None:
    """Copy the recipe's average into the module's own parameters and buffers.

    Everything is read anew and averaged on the CPU, which takes memory for a sum of all ingredients. Raises
    Incompatible for ingredients that differ in layout or in integer or boolean tensors, that do not fit the
    module, or whose tied tensors differ; NotFinite for a sum that overflows, the module unchanged; and what
    the checkpoints raise.
    """
    require_no_overlay(recipe)
    with torch.inference_mode():
        tensors, mean = _mean(recipe, checkpoints)
        place = placement(module, tensors)
        torn = [
            f"{a} and {b} are one tensor in the model" for a, b in place.ties if not mean[a].equal(mean[b])
        ]
        if faults := [*place.faults, *torn]:
            raise Incompatible(
                f"these weights do not fit {type(module).__name__}, the task's model",
                faults=faults,
                mend="make Task.model() build the architecture that the sweep trained",
            )
        for name, target in place.targets.items():
            target.copy_(mean[name])


def _mean(recipe: Recipe, checkpoints: Checkpoints) -> tuple[tuple[TensorSpec, ...], dict[str, Tensor]]:
    """The first ingredient's tensors, and the average of each."""
    first, *others = recipe.checkpoints
    with checkpoints.open(first) as weights:
        tensors = weights.tensors
        mean = {spec.name: weights.read(spec.name) for spec in tensors}
    if not others:
        return tensors, mean
    floats = {name: tensor.dtype for name, tensor in mean.items() if tensor.is_floating_point()}
    for name, dtype in floats.items():
        mean[name] = mean[name].to(torch.float64 if dtype == torch.float64 else torch.float32)
    for digest in others:
        with checkpoints.open(digest) as weights:
            if weights.tensors != tensors:
                raise misfit(recipe, [f"{short(digest)}: its tensors are others"])
            for name, total in mean.items():
                tensor = weights.read(name)
                if name in floats:
                    total.add_(tensor.to(total.dtype))
                elif not torch.equal(total, tensor):
                    raise misfit(recipe, [f"{short(digest)}: {name} holds other values"])
    for name, dtype in floats.items():
        coefficient = torch.tensor(recipe.ingredients[0].coefficient, dtype=mean[name].dtype)
        mean[name] = (mean[name] * coefficient).to(dtype)
    if offenders := [name for name in floats if not mean[name].isfinite().all()]:
        raise overflow(recipe, offenders, len(tensors))
    return tensors, mean
