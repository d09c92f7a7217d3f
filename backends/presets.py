"""Well-known OpenAI-compatible providers: what differs between them is data, not code.

A row is only a default; every value can be set in the configuration entry itself.
"""

from msgspec import Struct

from backends.base import Price

_STRICT = frozenset({"top_k", "reasoning_content"})
"""Of those who refuse every field that they do not know.
https://github.com/tashfeenahmed/freellmapi/issues/1070, https://github.com/Kilo-Org/kilocode/issues/10375,
https://github.com/OpenMinis/OpenMinis/issues/87"""
_OPENAIS_STATE = ("prompt_cache_key", "safety_identifier")
"""https://platform.openai.com/docs/api-reference/chat/create"""


class Preset(Struct, frozen=True, kw_only=True):
    base_url: str | None
    """None: the configuration must give it, since it is the account's own."""
    env: str | None = None
    """Environment variable that customarily holds the key; None: no key is needed."""
    key_header: str = "authorization"
    """`authorization` sends a bearer token; any other header gets the bare key."""
    stream_usage: bool = True
    """Takes `stream_options.include_usage`; where it is not taken, usage comes unasked or never."""
    max_tokens_field: str = "max_tokens"
    responses: bool = False
    """Speaks the Responses API itself; elsewhere it is translated to chat, and the gateway keeps the turns."""
    reranks: bool = False
    """Has POST /rerank, in Jina's or Cohere's shape."""
    prefills: bool | None = None
    """Goes on with an assistant's message that ends a request, and does not take its turn for over; None: unknown."""
    refuses: frozenset[str] = frozenset()
    """Fields that compatible servers take and this one refuses: `top_k`, and a turn's `reasoning_content`."""
    state: tuple[str, ...] = ()
    """Of a request's state, the tokens that are fields of its own; it gives none to be brought back."""
    price: Price | None = "paid"
    """Price class of its models: paid, free (with or without quota) or local."""


PRESETS: dict[str, Preset] = {
    "openai": Preset(
        base_url="https://api.openai.com/v1",
        env="OPENAI_API_KEY",
        max_tokens_field="max_completion_tokens",
        refuses=frozenset({"top_k"}),
        responses=True,
        prefills=False,
        state=_OPENAIS_STATE,
    ),
    # Azure's v1 surface takes OpenAI's paths as they are; base_url is https://RESOURCE.openai.azure.com/openai/v1
    "azure": Preset(
        base_url=None,
        env="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        max_tokens_field="max_completion_tokens",
        refuses=frozenset({"top_k"}),
        responses=True,
        prefills=False,
    ),
    "groq": Preset(base_url="https://api.groq.com/openai/v1", env="GROQ_API_KEY", refuses=_STRICT),
    "openrouter": Preset(base_url="https://openrouter.ai/api/v1", env="OPENROUTER_API_KEY"),
    "together": Preset(base_url="https://api.together.xyz/v1", env="TOGETHER_API_KEY", reranks=True),
    "mistral": Preset(base_url="https://api.mistral.ai/v1", env="MISTRAL_API_KEY", stream_usage=False, refuses=_STRICT),
    "deepseek": Preset(base_url="https://api.deepseek.com/v1", env="DEEPSEEK_API_KEY"),
    "xai": Preset(base_url="https://api.x.ai/v1", env="XAI_API_KEY"),
    "gemini": Preset(base_url="https://generativelanguage.googleapis.com/v1beta/openai", env="GEMINI_API_KEY"),
    "cerebras": Preset(base_url="https://api.cerebras.ai/v1", env="CEREBRAS_API_KEY", refuses=_STRICT),
    "fireworks": Preset(base_url="https://api.fireworks.ai/inference/v1", env="FIREWORKS_API_KEY", reranks=True),
    "nvidia": Preset(base_url="https://integrate.api.nvidia.com/v1", env="NVIDIA_API_KEY"),
    "github": Preset(base_url="https://models.github.ai/inference", env="GITHUB_TOKEN", price="free"),
    "huggingface": Preset(base_url="https://router.huggingface.co/v1", env="HF_TOKEN"),
    "ollama": Preset(base_url="http://127.0.0.1:11434/v1", price="local"),
    "lmstudio": Preset(base_url="http://127.0.0.1:1234/v1", price="local"),
    "vllm": Preset(base_url="http://127.0.0.1:8000/v1", price="local", reranks=True),
    "llama-server": Preset(base_url="http://127.0.0.1:8081/v1", price="local", reranks=True),
    # Public endpoints that answer without a key, within an anonymous quota.
    "ovhcloud": Preset(base_url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", price="free"),
    "pollinations": Preset(base_url="https://text.pollinations.ai/openai", price="free"),
    "llm7": Preset(base_url="https://api.llm7.io/v1", price="free"),
}

COMPATIBLE = Preset(base_url=None, reranks=True, price=None, state=_OPENAIS_STATE)
"""Any other endpoint that speaks OpenAI's dialect: `base_url` alone, with or without a key."""
