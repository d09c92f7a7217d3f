"""What a file of safetensors says of itself: how many numbers it holds, and whether it holds them all.

Source: https://github.com/huggingface/safetensors#format
"""

import os
import stat
import struct
from math import prod
from pathlib import Path
from typing import Annotated, Any

import msgspec

HEADER_MAX_BYTES = 32 << 20
NUMBERS_MAX = 1 << 50
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[list[_Count], msgspec.Meta(max_length=16)]
    data_offsets: tuple[_Count, _Count]


class Weights(msgspec.Struct, frozen=True):
    parameters: int
    truncated: bool


_tensors = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(Tensor)


def read(path: Path) -> Weights:
    """Raises ValueError for what is none, OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(file).st_size
        length = struct.unpack("<Q", os.pread(file, 8, 0))[0]
        if length > HEADER_MAX_BYTES:
            raise ValueError("its header is too long")
        header: dict[str, Any] = _tensors.decode(os.pread(file, length, 8))
        tensors = [_tensor.decode(raw) for name, raw in header.items() if name != "__metadata__"]
    except (struct.error, msgspec.MsgspecError, RecursionError):
        raise ValueError("it is not safetensors") from None
    finally:
        os.close(file)
    parameters = sum(prod(tensor.shape) for tensor in tensors)
    if parameters > NUMBERS_MAX:
        raise ValueError("it claims more numbers than any model has")
    end = max((tensor.data_offsets[1] for tensor in tensors), default=0)
    return Weights(parameters, size < 8 + length + end)
