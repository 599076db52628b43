"""Checks of the input of an attack.

A model, images or classes with which the attack would fail or mislead give one clear error message.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# The gradient of this number of images is checked.
_FEW = 4
# If there are at least this number of outputs, all between 0 and 1, they are taken to be probabilities.
_MANY = 20
_NUDGE = 1e-3  # As a fraction of the width of the box.
# Logits that differ by less than this number of margins have another scale.
_SCALES = 0.5
_ROUNDING = 1e-6  # As a fraction of the width of the box.


class _Function(nn.Module):
    """A module that calls a plain function."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.forward = function


def as_module(model: Any) -> nn.Module:
    """Convert a model to a module.

    Args:
        model: A module, or a plain function of images.
    Returns:
        The module. A compiled model is replaced by the one before torch.compile.
    Raises:
        ValueError: If the model cannot be called.
    """
    # torch.compile cannot keep a graph for two gradients.
    model = getattr(model, "_orig_mod", model)
    model = getattr(model, "_torchdynamo_orig_callable", model)
    # The eval method of an exported model raises an error, and such a model has only one mode.
    exported = isinstance(model, nn.Module) and "eval" in vars(model)
    if isinstance(model, nn.Module) and not exported:
        return model
    if not callable(model):
        raise ValueError(
            f"the model is {type(model).__name__}: give a module, or a function of images that returns logits"
        )
    return _Function(lambda images: model(images)).eval()


def as_numbers(bounds: Any) -> tuple[float, float]:
    """Convert the bounds of the pixels to numbers.

    Args:
        bounds: The smallest and the largest pixel value, which apply to all pixels.
    Returns:
        The bounds as two floats.
    Raises:
        ValueError: If the bounds are not two numbers.
    """
    try:
        lower, upper = bounds
        return float(lower), float(upper)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"bounds are {bounds}: give two numbers for all pixels, "
            "and put what differs between channels into the model"
        ) from None


def without_rounding(images: Any, bounds: tuple[float, float]) -> Any:
    """Clip images that exceed the bounds only by rounding.

    Args:
        images: The images, (b, ...). Any other object is returned as it is.
        bounds: The smallest and the largest pixel value.
    Returns:
        The clipped images if no pixel is out of bounds by more than 1e-6 of the box's width. Otherwise the
        given images.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or not bounds[0] < bounds[1]:
        return images  # A later check raises the error.
    width, inside = bounds[1] - bounds[0], images.clamp(*bounds)
    beyond = (images - inside).abs()
    return inside if beyond.any() and math.isfinite(width) and (beyond <= _ROUNDING * width).all() else images


def check_inputs(
    model: nn.Module, images: Tensor, bounds: tuple[float, float], margin: float, batch: int | None
) -> int:
    """Check the model, the images and the options of an attack.

    Args:
        model: A module that returns logits (b, k), in evaluation mode.
        images: The images, (b, ...), float32 or float64, within the bounds.
        bounds: The smallest and the largest pixel value.
        margin: The lead in logits that the target needs, 0 or larger.
        batch: The number of images in a batch, or None.
    Returns:
        The number of classes k.
    Raises:
        ValueError: If no attack can be made on this input. (See `blindspots.attack.core.minimum_distortion`
            for the requirements.)
    """
    if not bounds[0] < bounds[1]:
        raise ValueError(f"bounds are {bounds}: give the smaller one first")
    if not isinstance(margin, Real) or not margin >= 0:
        raise ValueError(f"margin is {margin!r}: it has to be 0 or larger")
    if batch is not None:
        check_count("batch", batch)
    for name, module in model.named_modules():
        if getattr(module, "training", False):
            raise ValueError("the model is in training mode: call model.eval() first")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"the model's {name or type(module).__name__} normalises by the batch's own statistics, "
                "so that an image's logits depend on the others: make it with track_running_stats=True"
            )
    if torch.is_inference_mode_enabled():
        raise ValueError("torch.inference_mode() has no gradients: attack outside of it")
    if any(values.is_inference() for values in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "the model was made in torch.inference_mode(), which has no gradients: make it outside of that"
        )
    for name, values in model.named_parameters():
        if not values.isfinite().all():
            raise ValueError(f"the model's {name} has a value that is NaN or infinite")
    for name, values in model.named_buffers():
        if values.isnan().any():  # An infinite value may be a mask.
            raise ValueError(f"the model's {name} has a value that is NaN")
    if not isinstance(images, Tensor):
        raise ValueError(f"the images are {type(images).__name__}: give a tensor")
    if images.ndim < 2:
        raise ValueError(
            f"the images are of shape {tuple(images.shape)}: give (b, ...), b images of one shape"
        )
    if not len(images):
        raise ValueError("there are no images to attack")
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the images are {images.dtype}: give float32 or float64 within the bounds, "
            "and a model that takes it"
        )
    if images.is_inference():
        raise ValueError("torch.inference_mode() has no gradients: clone the images, which were made in it")
    if torch.is_autocast_enabled(images.device.type):
        raise ValueError("torch.autocast is on, which rounds the logits: attack outside of it")
    check_bounds("an image", images, bounds)
    few = images[: min(batch or 100, 100)].detach()
    shown = few.clone()
    with torch.no_grad():
        try:
            said = model(shown)
        except Exception as error:  # A model's own checks may raise any error.
            shape = tuple(images.shape[1:])
            raise ValueError(
                f"the model does not take {images.dtype} images {shape}: {_first_line(error)}"
            ) from error
    if not isinstance(said, Tensor) or said.ndim != 2 or len(said) != len(few) or said.shape[1] < 2:
        shape = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise ValueError(
            f"the model returns {shape} for {len(few)} images: it has to return (b, k) logits, k ≥ 2"
        )
    if said.dtype != images.dtype:
        raise ValueError(
            f"the model returns {said.dtype} for {images.dtype} images: it has to compute in their precision"
        )
    if not torch.equal(shown, few):
        raise ValueError(
            "the model changes the images that it is given: leave out its operations in place on them"
        )
    if not said.isfinite().all():
        raise ValueError(
            "the model returns NaN or infinite logits: no attack can be made on it; "
            "mask a class by a finite number, as -1e4"
        )
    if (said >= 0).all() and (said.sum(1) - 1).abs().max() < 1e-4:
        raise ValueError(
            "the model returns probabilities, which sum to 1: leave out its softmax, the attack needs logits"
        )
    if ((said >= 0) & (said <= 1)).all() and said.shape[1] * len(said) >= _MANY:
        raise ValueError(
            "all that the model returns lies between 0 and 1, as probabilities do: leave out its sigmoids, "
            "the attack needs logits; if these are logits, return them times 10"
        )
    spread = (said.amax(1) - said.amin(1)).max().item()
    if spread < _SCALES * margin:
        raise ValueError(
            f"margin is {margin}, and the model's logits differ by {spread:.2g} at most: "
            f"return them times some number, or give a smaller margin"
        )
    # A single image is checked beside another one, which is the same image with its pixels reversed.
    if len(few) == 1 and batch != 1:
        few = torch.cat([few, few.flatten(1).flip(1).view_as(few)])
    _check_answers(model, few, margin)
    _check_gradient(model, few[:_FEW], bounds)
    return said.shape[1]


@torch.no_grad()
def _check_answers(model: nn.Module, images: Tensor, margin: float) -> None:
    """Check that an image's logits do not depend on the call, on the order or on the other images.

    Otherwise an example could succeed in the attack and fail when it is classified again.

    Raises:
        ValueError: If the logits differ by more than rounding.
    """

    def asked(images: Tensor) -> Tensor:
        try:
            return model(images.clone())
        except Exception as error:  # A model's own checks may raise any error.
            count = "one image" if len(images) == 1 else f"{len(images)} images"
            raise ValueError(
                f"the model does not take {count}: {_first_line(error)}; let it take any number"
            ) from error

    said = asked(images)
    eps, scale = torch.finfo(said.dtype).eps, said.abs().max().clamp_min(1.0).item()
    # With another number of images, the sums may have another order.
    rounding = eps**0.5 * scale
    if ((asked(images) - said).abs() > min(rounding, max(margin / 4, 64 * eps * scale))).any():
        raise ValueError(
            "the model returns other logits when it is asked again: leave out what is random in it, such as "
            "functional.dropout without training=self.training"
        )
    alone = asked(images[:1])
    if alone.shape != said[:1].shape:
        raise ValueError(
            f"the model returns {tuple(alone.shape)} for one image alone, not {tuple(said[:1].shape)}: "
            "leave out what drops the batch's axis, such as squeeze()"
        )
    last, turned = asked(images[-1:]), asked(images.roll(1, 0)).roll(-1, 0)
    if any(
        ((one - other).abs() > rounding).any()
        for one, other in ((alone, said[:1]), (last, said[-1:]), (turned, said))
    ):
        raise ValueError(
            "the model returns other logits for an image when others are beside it, or in another order: "
            "leave out what mixes them or depends on their places, such as "
            "batch normalisation by the batch's own statistics (track_running_stats=False)"
        )


def _check_gradient(model: nn.Module, images: Tensor, bounds: tuple[float, float]) -> None:
    """Check that the gradient is finite for some image, and is not lost where pixels are on their bounds."""
    here = _gradient(model, images)
    if not here.isfinite().flatten(1).all(1).any():
        raise ValueError(
            "the gradient of the model's logits is NaN or infinite, "
            "as that of a square root or a norm is at 0: add a small number there"
        )
    width = bounds[1] - bounds[0]
    nudge = _NUDGE * (width if math.isfinite(width) else 1.0)
    lower, upper = (images == bound for bound in bounds)
    for on in (lower, upper):
        without = on.any() and not here[on].any()
        if without and _gradient(model, images + nudge * lower - nudge * upper)[on].any():
            raise ValueError(
                "the model has no gradient where pixels are on their bounds, as one that clamps its images: "
                "leave that out, the attack keeps to the bounds by itself"
            )


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    """The gradient of each image's largest logit with respect to its pixels, (b, ...)."""
    with torch.enable_grad():
        images = images.clone().requires_grad_()
        try:
            # The sum of all logits of an image may be constant.
            answer = model(images).amax(1).sum()
            gradient = (
                torch.autograd.grad(answer, images, allow_unused=True)[0] if answer.requires_grad else None
            )
        except RuntimeError as error:
            raise ValueError(
                f"the model has no gradient with respect to its images: {_first_line(error)}"
            ) from error
    if gradient is None:
        raise ValueError("the model has no gradient with respect to its images: the attack needs it")
    return gradient


def _first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type if there is no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_bounds(what: str, images: Tensor, bounds: tuple[float, float]) -> None:
    """Check that all pixels are within the bounds.

    Args:
        what: The name of the images in the error message.
        images: The images, of any shape.
        bounds: The smallest and the largest pixel value.
    Raises:
        ValueError: If a pixel is outside the bounds or NaN.
    """
    outside = images[~((images >= bounds[0]) & (images <= bounds[1]))]
    if len(outside):
        raise ValueError(
            f"{what} has a value outside [{bounds[0]}, {bounds[1]}], or NaN: {outside[0].item():g}; "
            "scale the images or give bounds"
        )


def check_count(what: str, count: Any) -> None:
    """Check that a number is an integer of at least 1.

    Args:
        what: The name of the number in the error message.
        count: The number.
    Raises:
        ValueError: If it is not an integer, or less than 1.
    """
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{what} is {count!r}: it has to be 1 at least, a whole number")


def check_classes(what: str, classes: Tensor, images: Tensor, k: int) -> None:
    """Check that there is one valid class for each image.

    Args:
        what: The name of one class in the error message.
        classes: The classes, (b,), integers, on the images' device.
        images: The images, (b, ...).
        k: The number of classes.
    Raises:
        ValueError: If the classes have another type, shape or device, or if one is out of range.
    """
    if not isinstance(classes, Tensor) or classes.dtype not in _INTEGERS or classes.shape != images.shape[:1]:
        given = (
            f"{classes.dtype} {tuple(classes.shape)}"
            if isinstance(classes, Tensor)
            else type(classes).__name__
        )
        raise ValueError(
            f"the {what}s are {given}: give one class for each of {len(images)} images, as integers"
        )
    if classes.device != images.device:
        raise ValueError(
            f"the {what}s are on {classes.device}, the images on {images.device}: move them together"
        )
    wrong = (classes < 0) | (classes >= k)
    if wrong.any():
        raise ValueError(f"{what} {int(classes[wrong][0])} is none of the model's {k} classes, 0 to {k - 1}")
