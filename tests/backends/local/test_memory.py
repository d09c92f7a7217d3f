"""What a process takes, what engines say of it, and what they print when there is too little."""

import os
import subprocess
import sys

import pytest

from backends.local.memory import TOKEN_BYTES, Said, available_bytes, died_of_memory, kills, machine_bytes, tree_bytes

MIB = 2**20
HOG = "import sys; held = bytearray({}); {}; print('here', flush=True); sys.stdin.read()"
GRANDCHILD = "import subprocess; p = subprocess.Popen([sys.executable, '-c', 'x = bytearray(60 << 20); input()'])"


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 754974720",
        "alloc_tensor_range: failed to allocate CPU buffer of size 754974720",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 41.96 MB)",
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "mmap failed: Cannot allocate memory",
        "MemoryError: Unable to allocate 4.00 GiB for an array",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "Failed to allocate memory for requested buffer of size 4194304",
    ],
)
def test_engines_say_in_many_words_that_memory_ran_out(line: str) -> None:
    assert died_of_memory(["loading", line, "exiting"])


@pytest.mark.parametrize(
    "line",
    [
        "error loading model: tensor 'token_embd.weight' data is not within the file bounds",
        "WARNING: failed to allocate 12.00 MB of pinned memory: out of host memory",
        "RuntimeError: Failed to init server, please check the input params.",
    ],
)
def test_other_failures_are_no_shortage(line: str) -> None:
    assert not died_of_memory([line])


def test_an_engine_that_names_no_buffer_has_said_nothing() -> None:
    said = Said()
    said.read("0.00.631 I print_info: n_vocab               = 1000")
    assert said.size_bytes is None


def test_what_llama_cpp_says_it_takes_is_added_up() -> None:
    said = Said()
    assert not said.device_bytes
    for line in (
        "0.00.631 I print_info: n_vocab               = 1000",
        "load_tensors:   CPU_Mapped model buffer size =    60.00 MiB",
        "load_tensors:   CPU_Mapped model buffer size =    40.00 MiB",
        "load_tensors:        CUDA0 model buffer size =   500.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =    45.00 MiB",
        "sched_reserve:        CPU compute buffer size =     9.00 MiB",
        "sched_reserve:        CPU compute buffer size =     4.50 MiB",
    ):
        said.read(line)
    assert said.size_bytes == int(649.5 * MIB) + 1000 * TOKEN_BYTES
    assert said.device_bytes == 500 * MIB


def hog(mib: int, more: str = "pass") -> "subprocess.Popen[str]":
    program = HOG.format(mib * MIB, more)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def test_a_process_counts_with_what_it_started() -> None:
    with hog(80) as alone:
        taken = tree_bytes(alone.pid)
        assert taken is not None
        assert 80 * MIB < taken < 120 * MIB
    with hog(10, GRANDCHILD) as parent:
        while (taken := tree_bytes(parent.pid) or 0) < 80 * MIB:
            assert parent.poll() is None
    assert tree_bytes(parent.pid) is None


def test_the_machine_has_more_than_is_free_and_nobody_was_starved_meanwhile() -> None:
    assert 0 < available_bytes() <= machine_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert kills() == kills()
