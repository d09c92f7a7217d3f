"""Which files a model is made of, and what is refused."""

from typing import Any

import pytest
from msgspec.structs import replace

from compat.canonical.error import GatewayError, InvalidRequest
from gateway.hub.choice import Choice, Wanted, choose
from gateway.hub.folder import documents_of
from gateway.hub.quantization import ORDER, named, normal, rank
from gateway.hub.repo import Repo, RepoFile
from gateway.hub.safety import INDEX

GIB = 1 << 30
KINDS = {"Q2_K": 3, "Q4_K_M": 4.5, "Q5_K_M": 5.5, "Q6_K": 6.5, "Q8_0": 8.5, "F16": 16}
"""Of a model of 8 billion parameters, GiB of each."""


def repo(files: dict[str, float] | list[str], **fields: Any) -> Repo:
    """files: path → GiB."""
    sizes = files if isinstance(files, dict) else dict.fromkeys(files, 0.001)
    rows = tuple(RepoFile(path=path, size_bytes=int(size * GIB)) for path, size in sizes.items())
    return Repo(id="org/Tiny-GGUF", commit="0" * 40, revision="main", files=rows, **fields)


def chosen(there: Repo, memory_gib: float = 16, *, quantization: str | None = None, file: str | None = None) -> Choice:
    wanted = Wanted(repo=there.id, quantization=quantization, file=file)
    return choose(there, wanted, memory_bytes=int(memory_gib * GIB))


def refused(there: Repo, *, quantization: str | None = None, file: str | None = None) -> GatewayError:
    with pytest.raises(InvalidRequest) as caught:
        chosen(there, quantization=quantization, file=file)
    return caught.value


def paths(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


EIGHT = repo({f"Tiny-8B-{kind}.gguf": size for kind, size in KINDS.items()}, parameters=8 * 10**9)


def test_without_sizes_what_is_likeliest_to_fit_is_taken_and_no_fit_is_told() -> None:
    bare = replace(EIGHT, files=tuple(replace(file, size_bytes=0, sized=False) for file in EIGHT.files))
    choice = chosen(bare)
    assert (choice.quantization, choice.fit, choice.memory_bytes) == ("Q4_K_M", None, None)
    assert "its size is not known" in choice.reason
    some = replace(EIGHT, files=(*bare.files[:-1], EIGHT.files[-1]))
    assert chosen(some, 32).quantization == EIGHT.files[-1].path[8:-5]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model-q4_k_m", "Q4_K_M"),
        ("Tiny-8B-Instruct.Q4_K_M", "Q4_K_M"),
        ("Tiny-8B-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("tiny-IQ4_XS", "IQ4_XS"),
        ("tiny-iq2_xxs-v2", "IQ2_XXS"),
        ("tiny.f16", "F16"),
        ("tiny-fp16", "F16"),
        ("tiny-BF16", "BF16"),
        ("Q8_0", "Q8_0"),
        ("gpt-oss-20b-MXFP4_MOE", "MXFP4_MOE"),
        ("tiny-q8", "Q8"),
        ("tiny-Q4_0_4_4", "Q4_0_4_4"),
        ("Qwen2-7B", None),
        ("seq4_models", None),
        ("half16", None),
    ],
)
def test_the_quantization_is_read_from_the_name(name: str, kind: str | None) -> None:
    found = named(name)
    assert (found and found[0]) == kind
    if found is not None:
        assert normal(found[0].lower()) == kind
        assert rank(found[0]) < len(ORDER)


@pytest.mark.parametrize("asked", ["Q4_K_M", "q4_k_m", " Q4_k_M "])
def test_a_quantization_is_had_by_its_name(asked: str) -> None:
    found = chosen(EIGHT, quantization=asked)
    assert (found.quantization, found.opens, found.name) == ("Q4_K_M", "Tiny-8B-Q4_K_M.gguf", "tiny-8b-q4_k_m")
    assert found.size_bytes == int(4.5 * GIB)
    assert found.memory_bytes is not None
    assert found.memory_bytes > found.size_bytes


@pytest.mark.parametrize(
    ("memory_gib", "kind", "fit"),
    [
        (64, "Q8_0", "fits"),  # F16 would fit too, and is hardly better
        (16, "Q8_0", "fits"),
        (12, "Q6_K", "fits"),
        (9, "Q4_K_M", "fits"),
        (7, "Q2_K", "fits"),
        (5, "Q2_K", "tight"),
        (2, "Q2_K", "no"),
    ],
)
@pytest.mark.parametrize("asked", [None, "best fit"])
def test_the_best_that_fits_is_taken(memory_gib: float, kind: str, fit: str, asked: str | None) -> None:
    found = chosen(EIGHT, memory_gib, quantization=asked)
    assert (found.quantization, found.fit) == (kind, fit)
    assert ("tight" in found.reason, "none fits" in found.reason) == (fit == "tight", fit == "no")


def test_where_there_is_nothing_between_the_finest_that_is_comfortable_is_not_refused() -> None:
    assert chosen(repo({"t-F32.gguf": 2, "t-F16.gguf": 1, "t-Q2_K.gguf": 0.2}), 16).quantization == "F16"


def test_a_quantization_that_is_not_there_is_answered_by_those_that_are() -> None:
    error = refused(EIGHT, quantization="Q3_K_M")
    assert error.param == "quantization"
    for kind in KINDS:
        assert kind in error.message


def test_unsloths_dynamic_kinds_are_had_by_either_name_and_do_not_stand_for_the_plain_one() -> None:
    there = repo(["t-UD-Q4_K_XL.gguf", "t-Q4_K_M.gguf", "t-UD-Q4_K_M.gguf"])
    assert chosen(there, quantization="q4_k_xl").opens == "t-UD-Q4_K_XL.gguf"
    assert chosen(there, quantization="UD-Q4_K_XL").opens == "t-UD-Q4_K_XL.gguf"
    assert chosen(there, quantization="Q4_K_M").opens == "t-Q4_K_M.gguf"


SPLIT = [f"Q4_K_M/big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize(("kind", "file"), [("Q4_K_M", None), (None, SPLIT[0]), (None, SPLIT[2]), (None, None)])
def test_a_split_model_is_taken_whole_whichever_part_is_named(kind: str | None, file: str | None) -> None:
    found = chosen(repo([SPLIT[2], SPLIT[0], "README.md", SPLIT[1]]), quantization=kind, file=file)
    assert paths(found) == SPLIT
    assert (found.opens, found.name, found.quantization) == (SPLIT[0], "big", "Q4_K_M")


def test_a_split_model_with_a_part_missing_is_not_offered() -> None:
    there = repo([*SPLIT[:2], "big-Q8_0.gguf"])
    assert chosen(there).opens == "big-Q8_0.gguf"
    assert "other parts are not there" in refused(there, file=SPLIT[0]).message
    assert "parts of it are missing" in refused(repo(SPLIT[:2])).message


def test_a_model_that_sees_brings_its_projector() -> None:
    there = repo(
        {"see-Q4_K_M.gguf": 2, "mmproj-F32.gguf": 1, "mmproj-BF16.gguf": 0.5, "mmproj-F16.gguf": 0.4, "imatrix.gguf": 1}
    )
    found = chosen(there)
    assert (found.projector, paths(found)) == ("mmproj-F16.gguf", ["see-Q4_K_M.gguf", "mmproj-F16.gguf"])
    assert found.size_bytes == int(2 * GIB) + int(0.4 * GIB)


def test_a_projector_goes_with_the_model_it_is_named_after() -> None:
    there = repo(["a-7b-Q4_K_M.gguf", "b-7b-Q4_K_M.gguf", "mmproj-b-7b-f16.gguf"])
    assert chosen(there, file="a-7b-Q4_K_M.gguf").projector is None
    assert chosen(there, file="b-7b-Q4_K_M.gguf").projector == "mmproj-b-7b-f16.gguf"
    assert "projector" in refused(there, file="mmproj-b-7b-f16.gguf").message


def test_of_several_models_one_has_to_be_named() -> None:
    there = repo(["a-Q4_K_M.gguf", "a-Q8_0.gguf", "b-Q4_K_M.gguf"])
    for kind in (None, "Q4_K_M"):
        error = refused(there, quantization=kind)
        assert error.param == "file"
        assert "a-Q4_K_M.gguf" in error.message
        assert "b-Q4_K_M.gguf" in error.message
    assert chosen(there, quantization="Q8_0").opens == "a-Q8_0.gguf"
    assert chosen(there, file="b-Q4_K_M.gguf").name == "b-q4_k_m"


def test_a_file_that_is_not_there_is_answered_by_those_that_are() -> None:
    error = refused(EIGHT, file="nope.gguf")
    assert (error.param, "Tiny-8B-Q8_0.gguf" in error.message) == ("file", True)


@pytest.mark.parametrize(
    ("pipeline", "architecture", "modality"),
    [
        ("text-generation", "llama", "text"),
        (None, "bert", "embedding"),
        ("sentence-similarity", "llama", "embedding"),
        ("text-ranking", "bert", "rerank"),
    ],
)
def test_what_it_makes_is_what_the_hub_says(pipeline: str | None, architecture: str, modality: str) -> None:
    assert chosen(repo(["a.gguf"], pipeline=pipeline, architecture=architecture)).modality == modality


def test_images_from_gguf_are_refused() -> None:
    assert "makes images" in refused(repo(["flux-Q4_0.gguf"], pipeline="text-to-image")).message


@pytest.mark.parametrize(
    "path",
    [
        *("../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "a\\b.gguf", "a\0b.gguf", "a//b.gguf", "C:/x.gguf", "./x.gguf"),
        *("a" * 256 + ".gguf", "x.gguf.part", "a\u202eb.gguf", "x\n.gguf", ""),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(path: str) -> None:
    assert refused(repo([path]), file=path).status == 400
    if path.endswith(".gguf"):
        assert refused(repo([path])).code == "unsafe_repo"


def test_names_that_differ_in_capitals_only_are_refused() -> None:
    there = repo(["M-00001-of-00002.gguf", "m-00002-of-00002.gguf"])
    assert "missing" in refused(there).message
    folder = pipeline()
    both = Repo(
        id="org/p",
        commit="0" * 40,
        revision="main",
        files=(*folder.files, RepoFile(path="tokenizer/VOCAB.json", size_bytes=1)),
        documents=folder.documents,
    )
    assert "capitals" in refused(both).message


@pytest.mark.parametrize("ending", ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "h5", "msgpack", "joblib"])
def test_pickles_are_refused(ending: str) -> None:
    path = f"pytorch_model.{ending}"
    assert refused(repo([path, "config.json"])).code == "unsafe_repo"
    assert refused(repo([path, "a-Q4_0.gguf"]), file=path).code == "unsafe_repo"
    assert chosen(repo([path, "a-Q4_0.gguf"])).opens == "a-Q4_0.gguf"


def test_code_is_refused_when_it_is_asked_for_and_left_out_otherwise() -> None:
    there = repo(["modeling.py", "a-Q4_0.gguf"])
    assert refused(there, file="modeling.py").code == "unsafe_repo"
    assert paths(chosen(there)) == ["a-Q4_0.gguf"]


def test_text_in_safetensors_is_answered_by_where_a_conversion_is() -> None:
    there = repo(["config.json", "model.safetensors", "vocab.json"])
    assert "'org/Tiny-GGUF-GGUF'" in refused(there).message


def test_an_empty_repository_has_nothing() -> None:
    assert "no files" in refused(repo([])).message


INDEX_SAID: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
}
TAKEN = [
    *(INDEX, "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors"),
    *("tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json", "vae/config.json"),
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model.safetensors",
]
LEFT = [
    *("README.md", "sd-v1.safetensors", "v1.ckpt", "text_encoder/pytorch_model.bin", "text_encoder/flax_model.msgpack"),
    *("text_encoder/model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors", "unet/model.onnx"),
    *("unet/diffusion_pytorch_model.bin.index.json", "vae/diffusion_pytorch_model.bin", "safety_checker/config.json"),
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
]


def pipeline(
    *, without: tuple[str, ...] = (), index: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Repo:
    there = repo([path for path in TAKEN + LEFT if path not in without])
    said = {path: config or {} for path in documents_of(there)} | {INDEX: INDEX_SAID | (index or {})}
    return Repo(id="org/Small-SD", commit="0" * 40, revision="main", files=there.files, documents=said)


def test_of_a_pipeline_only_what_is_needed_is_taken() -> None:
    found = chosen(pipeline())
    assert sorted(paths(found)) == sorted(TAKEN)
    assert (found.format, found.modality, found.opens, found.name) == ("diffusers", "image", "", "small-sd")
    assert found.fit == "fits"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"without": ("vae/diffusion_pytorch_model.safetensors",)}, "only variants such as fp16"),
        ({"without": ("unet/diffusion_pytorch_model-00002-of-00002.safetensors",)}, "'unet'"),
        ({"without": ("text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors")}, "no weights"),
        ({"index": {"unet": ["my_unet", "MyUNet"]}}, "'my_unet'"),
        ({"index": {"_class_name": ["pipeline", "MyPipeline"]}}, "_class_name"),
        ({"index": {"_class_name": None}}, "_class_name"),
        ({"config": {"auto_map": {"AutoModel": "x.Y"}}}, "auto_map"),
    ],
)
def test_a_pipeline_that_would_run_code_or_lacks_safetensors_is_refused(change: dict[str, Any], said: str) -> None:
    error = refused(pipeline(**change))
    assert (error.code, said in error.message) == ("unsafe_repo", True), error.message


def test_a_pipeline_whose_description_was_not_read_is_refused() -> None:
    assert refused(repo(TAKEN)).code == "unsafe_repo"
    whole = pipeline()
    some = {path: said for path, said in whole.documents.items() if path != "unet/config.json"}
    partly = Repo(id="o/r", commit="0" * 40, revision="main", files=whole.files, documents=some)
    assert "'unet/config.json' could not be read" in refused(partly).message


def test_a_pipeline_of_graphs_is_taken_as_onnx() -> None:
    graphs = ["unet/model.onnx", "unet/weights.onnx_data", "text_encoder/model.onnx", "vae_decoder/model.onnx"]
    files = [INDEX, "scheduler/scheduler_config.json", "tokenizer/vocab.json", *graphs]
    index = {
        "_class_name": "OnnxStableDiffusionPipeline",
        "unet": ["diffusers", "OnnxRuntimeModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    there = repo([*files, "unet/model.safetensors.bak"])
    found = chosen(Repo(id="o/r", commit="0" * 40, revision="m", files=there.files, documents={INDEX: index}))
    assert (found.format, sorted(paths(found))) == ("onnx", sorted(files))


BERT = ["config.json", "vocab.txt", "model.safetensors", "1_Pooling/config.json", "modules.json"]


def test_a_bert_of_sentence_transformers_is_a_folder() -> None:
    there = repo([*BERT, "pytorch_model.bin", "onnx/model.onnx"])
    assert documents_of(there) == ("config.json", "1_Pooling/config.json")
    said: dict[str, dict[str, Any]] = {
        "config.json": {"model_type": "bert", "hidden_act": "gelu"},
        "1_Pooling/config.json": {},
    }
    found = chosen(Repo(id="o/mini", commit="0" * 40, revision="m", files=there.files, documents=said))
    assert (found.format, found.modality, found.opens, found.name) == ("gguf", "embedding", "", "mini")
    assert sorted(paths(found)) == sorted(BERT)
    said["config.json"]["auto_map"] = {}
    other = Repo(id="o/mini", commit="0" * 40, revision="m", files=there.files, documents=said)
    assert refused(other).code == "unsafe_repo"


def test_no_document_is_read_where_there_are_ggufs() -> None:
    assert documents_of(repo(["a-Q4_0.gguf", INDEX, "config.json", "model.safetensors"])) == ()
