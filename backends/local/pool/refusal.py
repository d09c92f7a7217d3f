"""The words in which a pool sends callers away: what is the matter, and the cure."""

from backends.local.pool.scheduler import Room
from backends.local.worker import Failed
from compat.canonical.error import (
    GatewayError,
    InsufficientMemory,
    InternalError,
    ModelLoading,
    ModelUnavailable,
    Overloaded,
    QueueFull,
    WorkerCrashed,
)

RETRY_S = 5.0
SOON_S = 1.0
SHORT_RETRY_S = 30.0
"""For memory that other programs hold now."""


def closing() -> Overloaded:
    return Overloaded("The local models are shutting down.", retry_after_s=RETRY_S)


def out_of_order() -> InternalError:
    return InternalError("The local models are out of order.")


def crowded(model: str) -> QueueFull:
    return QueueFull(f"Too many requests wait for model '{model}'.", retry_after_s=RETRY_S)


def failed(failure: Failed, rest_s: float) -> GatewayError:
    """For those who waited for a model that could not be loaded, or whose worker does not come back at once."""
    if failure.lasting:
        return ModelUnavailable(failure.reason)
    return WorkerCrashed(failure.reason, retry_after_s=max(rest_s, SOON_S))


def resting(reason: str, rest_s: float) -> ModelLoading:
    return ModelLoading(f"{reason} It will be tried again.", retry_after_s=rest_s)


def unplanned(model: str) -> ModelUnavailable:
    return ModelUnavailable(f"It cannot be told how model '{model}' is to be run.")


def loading(model: str, wait_s: float | None) -> ModelLoading:
    return ModelLoading(
        f"Model '{model}' is not in memory; it is being loaded.", retry_after_s=max(1.0, wait_s or RETRY_S)
    )


def no_room(model: str, need_bytes: int, most: Room, limits: Room, *, text: bool = True) -> InsufficientMemory:
    """most: all the room that can be made for it; limits: all there may be; text: it is one of llama.cpp's, which
    have a context and come quantized."""
    if most.places < 1:
        return InsufficientMemory(
            f"Model '{model}' cannot be loaded: pinned models take all {limits.places} places (max_loaded). "
            "Unpin one, or raise max_loaded."
        )
    need = f"Model '{model}' needs {amount(need_bytes)} of memory"
    if most.allowed < need_bytes:
        held = limits.allowed - most.allowed
        pinned = f", of which pinned ones hold {amount(held)}" if held > 0 else ""
        return InsufficientMemory(
            f"{need}, but local models may take {amount(limits.allowed)} together (memory_max){pinned}. "
            + (
                "Raise memory_max, lower context_max or slots for this model, or take a smaller or more quantized one."
                if text
                else "Raise memory_max, or take a smaller model."
            )
        )
    return InsufficientMemory(
        f"{need}, but this machine has only {amount(max(0, most.available))} free for it. "
        f"End other programs, or take a smaller {'or more quantized ' if text else ''}model.",
        retry_after_s=SHORT_RETRY_S,
    )


def amount(size_bytes: int) -> str:
    """In words for people."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{max(1, round(size_bytes / 2**20))} MiB"
