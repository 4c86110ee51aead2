"""A recipe's weights by its definition, without haste: what the hot swap is held against.

Nothing here is shared with `stockpot.evaluation.weights.live_module` but the list of which tensor goes where.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stockpot.entities import Recipe, short
from stockpot.evaluation.weights.module_weights import placement, unfit
from stockpot.ports import Checkpoints
from stockpot.soup.arithmetic import averaged
from stockpot.soup.average import opened
from stockpot.soup.coefficients import Factors, factors_by_tensor
from stockpot.soup.compatibility import must_agree
from stockpot.soup.refusals import misfit, overflow
from stockpot.soup.weights_file import WeightsFile


def put_plainly(module: nn.Module, recipe: Recipe, checkpoints: Checkpoints) -> None:
    """Copy the recipe's average into the module's own parameters and buffers.

    Everything is read anew and averaged on the CPU, which takes memory for the whole average. Raises
    Incompatible for ingredients that differ in layout or in integer or boolean tensors, that do not fit the
    module, or whose tied tensors differ; NotFinite for a sum that overflows, the module unchanged; and what
    the checkpoints raise.
    """
    with torch.inference_mode(), opened(recipe, checkpoints.open) as files:
        factors = factors_by_tensor(recipe, files[0].tensors, checkpoints.open)
        mean = _mean(recipe, files, factors)
        place = placement(module, files[0].tensors)
        torn = [
            f"{a} and {b} are one tensor in the model" for a, b in place.ties if not mean[a].equal(mean[b])
        ]
        if faults := [*place.faults, *torn]:
            raise unfit(module, faults)
        for name, target in place.targets.items():
            target.copy_(mean[name])


def _mean(recipe: Recipe, files: Sequence[WeightsFile], factors: Factors) -> dict[str, Tensor]:
    tensors, named = files[0].tensors, list(zip(map(short, recipe.checkpoints), files, strict=True))
    if others := [f"{digest}: its tensors are others" for digest, file in named if file.tensors != tensors]:
        raise misfit(recipe, others)
    mean = {
        spec.name: averaged((file.read(spec.name) for file in files), recipe, factors.get(spec.name))
        for spec in tensors
    }
    exact = [spec.name for spec in must_agree(tensors)]
    if others := [
        f"{digest}: {name} holds other values"
        for name in exact
        for digest, file in named
        if not torch.equal(file.read(name), mean[name])
    ]:
        raise misfit(recipe, others)
    offenders = [name for name, tensor in mean.items() if recipe.is_soup and not tensor.isfinite().all()]
    if offenders:
        raise overflow(recipe, offenders, len(tensors))
    return mean
