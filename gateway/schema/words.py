"""What there is to say of a parameter that no type says: its meaning, its default where the gateway knows it, examples.

By name, or by DIALECT.NAME where a dialect means something of its own by it.  Examples are sent by tests through the
decoders that read requests.
"""

from typing import Any, Literal

from msgspec import Struct

_PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""The smallest picture."""
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_FLAT_TOOL: dict[str, Any] = {"type": "function", **_TOOL["function"]}  # type: ignore[dict-item]
_OLD_TOOL = _TOOL["function"]
_CLAUDE_TOOL = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_ANSWER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_HELLO = [{"role": "user", "content": "Say hello."}]


class Word(Struct, frozen=True, kw_only=True):
    text: str
    examples: tuple[Any, ...] = ()
    default: Any = None
    """What the gateway or the dialect takes where the client says nothing; None leaves it to whoever answers."""
    beside: dict[str, Any] = {}
    """Fields without which it says nothing, or is refused."""
    instead: tuple[str, ...] = ()
    """Fields that it does not go with."""
    by: Literal["answerer", "gateway"] = "answerer"
    """gateway: who answers never sees it, so every route carries it."""


def _word(text: str, *examples: Any, default: Any = None, **more: Any) -> Word:
    return Word(text=text, examples=examples, default=default, **more)


def _own(text: str, *examples: Any, default: Any = None) -> Word:
    return Word(text=text, examples=examples, default=default, by="gateway")


_TOOLS = {"tools": [_TOOL]}
_PENALTY = "Above 0, tokens that have come {} are less likely to come again; below 0, more."
_IMAGES = {"images": [{"image_url": _PIXEL}]}

WORDS: dict[str, Word] = {
    # What to answer.
    "model": _own("Which model: a configured name, BACKEND/MODEL, or a bare name; `auto` picks by modality.", "auto"),
    "messages": _word("The conversation so far, in turns.", _HELLO),
    "prompt": _word("What the model is to go on from, or to make.", "A lighthouse at dusk."),
    "completions.prompt": _word("The text to go on from; a translated request takes one of them.", "Once upon a time"),
    "input": _word("A text, several, or texts as token ids.", "The quick brown fox.", ["one text", "another"]),
    "responses.input": _word("A text, or the items of a conversation.", "Say hello.", _HELLO),
    "query": _word("What the documents are to answer.", "Which city is the capital of France?"),
    "documents": _word("What is ranked: texts, or objects with a `text`.", ["Paris is in France.", "Bees make honey."]),
    "instructions": _word("What the model is told before the conversation.", "Answer in one sentence."),
    "system": _word("What the model is told before the conversation.", "Answer in one sentence."),
    "images": _word("Pictures to change, by data URL.", [{"image_url": _PIXEL}]),
    "image": _word("The picture to make it from, as a data URL, instead of a prompt.", _PIXEL, instead=("prompt",)),
    "mask": _word("A picture that is transparent where the other is to change.", {"image_url": _PIXEL}, beside=_IMAGES),
    # How to draw tokens.
    "temperature": _word("How freely tokens are drawn; 0 takes the likeliest.", 0.2, 1.0),
    "top_p": _word("Draw from the likeliest tokens that together have this probability.", 0.9),
    "top_k": _word("Draw from so many of the likeliest tokens.", 40),
    "min_p": _word("Leave out tokens less likely than this share of the likeliest one's probability.", 0.05),
    "typical_p": _word("Draw from tokens of typical information, up to this probability; 1 is off.", 0.95),
    "repeat_penalty": _word("Above 1, what was said is less likely to be repeated.", 1.1),
    "repeat_last_n": _word("How many tokens back `repeat_penalty` looks; -1 is all.", 64),
    "mirostat": _word("Draw by Mirostat, version 1 or 2; 0 is off.", 0, 2),
    "mirostat_tau": _word("Mirostat's target entropy.", 5.0),
    "mirostat_eta": _word("Mirostat's learning rate.", 0.1),
    "samplers": _word("Which samplers, in which order.", ["top_k", "top_p", "temperature"]),
    "grammar": _word("A GBNF grammar that the answer is held to.", 'root ::= "yes" | "no"'),
    "chat_template_kwargs": _word("What the model's chat template is given.", {"enable_thinking": False}),
    "reasoning_format": _word("How the engine tells thoughts from the answer.", "auto"),
    "thinking_budget_tokens": _word("How long the model may think.", 256),
    "presence_penalty": _word(_PENALTY.format("at all"), 0.5),
    "frequency_penalty": _word(_PENALTY.format("often"), 0.5),
    "logit_bias": _word("Token id to bias, from -100 (never) to 100 (always).", {"50256": -100}),
    "seed": _word("The same seed and request give the same answer, as far as the model can promise that.", 42),
    "stop": _word("Where this comes the answer ends, without it.", "\n\n", ["END", "STOP"]),
    "stop_sequences": _word("Where one of these comes the answer ends, without it.", ["END"]),
    "max_tokens": _word("How long the answer may be, in tokens; it ends where the context does.", 200),
    "completions.max_tokens": _word(
        "How long the answer may be, in tokens, up to the context's end; 16 where the request has to be translated.",
        200,
    ),
    "max_completion_tokens": _word(
        "How long the answer may be, in tokens, thoughts included; it ends where the context does.", 200
    ),
    "max_output_tokens": _word(
        "How long the answer may be, in tokens, thoughts included; it ends where the context does.", 200
    ),
    "chat.n": _word("How many answers to choose from.", 1, 2, default=1),
    "completions.n": _word("How many answers to choose from.", 1, 2, default=1),
    "best_of": _word("Write so many and give back the best.", 2, default=1),
    "echo": _word("Begin the answer with the prompt.", True, default=False),
    "suffix": _word("What comes after the text that is to be filled in.", "The end."),
    "logprobs": _word("Tell the probabilities of the answer's tokens.", True, default=False),
    "completions.logprobs": _word("Tell the probabilities of so many of the likeliest tokens at each place.", 2),
    "top_logprobs": _word("Tell so many of the likeliest tokens at each place.", 2, beside={"logprobs": True}),
    "responses.top_logprobs": _word(
        "Tell so many of the likeliest tokens at each place.", 2, beside={"include": ["message.output_text.logprobs"]}
    ),
    # Tools and the form of the answer.
    "tools": _word("What the model may call.", [_TOOL]),
    "messages.tools": _word("What the model may call.", [_CLAUDE_TOOL]),
    "responses.tools": _word("What the model may call.", [_FLAT_TOOL]),
    "tool_choice": _word(
        "Whether a tool is called: none, auto, required, or a certain one.", "auto", "required", beside=_TOOLS
    ),
    "messages.tool_choice": _word(
        "Whether a tool is called.", {"type": "auto"}, {"type": "any"}, beside={"tools": [_CLAUDE_TOOL]}
    ),
    "responses.tool_choice": _word(
        "Whether a tool is called: none, auto, required, or a certain one.", "auto", beside={"tools": [_FLAT_TOOL]}
    ),
    "functions": _word("Tools as they were before `tools`.", [_OLD_TOOL]),
    "function_call": _word("The choice among `functions`.", "auto", beside={"functions": [_OLD_TOOL]}),
    "parallel_tool_calls": _word("Whether one answer may call several tools.", False, beside=_TOOLS),
    "responses.parallel_tool_calls": _word(
        "Whether one answer may call several tools.", False, beside={"tools": [_FLAT_TOOL]}
    ),
    "max_tool_calls": _word("How many calls of the provider's own tools an answer may make.", 3),
    "chat.response_format": _word(
        "The form of the answer: text, any JSON object, or JSON of a schema.",
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "place", "schema": _ANSWER}},
    ),
    "text": _word(
        "The form of the answer and how wordy it is.",
        {"format": {"type": "json_schema", "name": "place", "schema": _ANSWER}},
    ),
    "output_config": _word("How hard to try, and the form of the answer.", {"effort": "low"}),
    "messages.output_format": _word("The form of the answer.", {"type": "json_schema", "schema": _ANSWER}),
    "reasoning_effort": _word("How long the model may think before it answers.", "low"),
    "reasoning": _word("How long the model may think, and whether it tells of that.", {"effort": "low"}),
    "thinking": _word(
        "Whether the model thinks first, and for how many tokens.",
        {"type": "enabled", "budget_tokens": 1024},
        beside={"max_tokens": 4096},
    ),
    "verbosity": _word("How wordy the answer is.", "low"),
    # The conversation and its bookkeeping.
    "metadata": _word("Up to 16 pairs of text that are kept with the answer.", {"case": "a-17"}),
    "messages.metadata": _word("Who the provider is told that the end user is.", {"user_id": "user-17"}),
    "user": _word("The end user, in words of your own, for the provider's abuse checks.", "user-17"),
    "safety_identifier": _word("The end user, in words of your own, for the provider's abuse checks.", "user-17"),
    "prompt_cache_key": _word("Requests of one key share a prompt cache.", "letters"),
    "prompt_cache_retention": _word("How long a prompt stays cached.", "24h"),
    "service_tier": _word("Which of the provider's tiers answers.", "auto", "flex"),
    "stream": _own("Send the answer piece by piece, as server-sent events.", True, default=False),
    "stream_options": Word(
        text="`include_usage` has the last event tell the tokens.",
        examples=({"include_usage": True},),
        beside={"stream": True},
        by="gateway",
    ),
    "store": _own("Keep the answer, so that another request can go on from it.", False, default=True),
    "previous_response_id": _own("The answer to go on from.", "resp_01"),
    "conversation": _word("A conversation that the provider keeps.", "conv_01"),
    "responses.prompt": _word("A prompt template that the provider keeps.", {"id": "pmpt_01"}),
    "responses.background": _word("Answer at once, and go on working.", True, default=False),
    "include": _word("What the answer is to tell besides.", ["message.output_text.logprobs"]),
    "truncation": _word("Whether the oldest turns go when there is no room for all.", "disabled", default="disabled"),
    "thread": _word("A conversation that the provider keeps.", {"id": "thread_01"}),
    # Vectors and rankings.
    "encoding_format": _own("How vectors are written; `base64` is little-endian float32.", "float", default="float"),
    "dimensions": _word("Numbers in each vector; fewer than the model has, where it was trained for that.", 256),
    "top_n": _own("How many of the best to name; all of them if it is left out.", 3),
    "return_documents": _own("Repeat each document beside its score.", True, default=False),
    # Pictures and meshes.
    "n": _word("How many pictures.", 1, 2, default=1),
    "size": _word("WIDTHxHEIGHT in pixels, or `auto`.", "512x512", default="auto"),
    "quality": _word("How much work the provider puts into it, in its own words.", "high"),
    "style": _word("The look of it, in the provider's words.", "natural"),
    "background": _word("Whether what is behind is transparent.", "transparent"),
    "moderation": _word("How strictly the provider looks at what is asked.", "low"),
    "input_fidelity": _word("How closely the given picture is kept to.", "high"),
    "output_format": _word("The kind of file.", "png"),
    "output_compression": _word("How good a JPEG or WebP is, in percent.", 80),
    "partial_images": _word("How many pictures of the work on the way to send.", 1, default=0, beside={"stream": True}),
    "response_format": _own("Whether the answer holds the picture, or says where it is.", "b64_json"),
    "3d.response_format": _own("Whether the answer holds the file, or says where it is.", "b64_json"),
    "output_formats": _own("The files to be had.", ["glb"], ["glb", "stl"]),
    "steps": _word("How many steps the engine works; more take longer.", 4, 20),
    "guidance": _word("How closely to follow the prompt.", 7.5),
    "negative_prompt": _word("What is not to be seen.", "text, watermark"),
    "strength": _word("How much a given picture changes.", 0.6),
    "resolution": _word("Points along a side of the grid that a mesh is made on.", 32),
    # The gateway's own dialect.
    "provider": _own("The backend to use, by its name in the configuration."),
    "modality": _own("What is to be made; what the model makes, if it is left out.", "text"),
    "session_id": _own("The session to go on with."),
    "state": _own("What the answer is to hand back unchanged.", {"turn": 3}),
    "selection_mode": _own("Which routes may answer, by their class of price.", "auto", "local_only", default="auto"),
    "native.input": _word("What to answer: a prompt or messages, with pictures.", {"prompt": "Say hello."}),
    "native.parameters": _word("How to go about it, by modality.", {}),
    "native.input.prompt": _word("What to answer, or to make.", "Say hello."),
    "native.input.messages": _word("OpenAI's chat messages, instead of a prompt.", _HELLO),
    "native.input.images": _word("Pictures, as `https:` or `data:` URLs.", [_PIXEL]),
    "native.seed": _word("The same again, as far as the model can promise that; of pictures and meshes from 0 on.", 42),
}
