"""How finely a model's numbers are kept: the names that files have for it, and which are better.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md
"""

import re

ORDER = (
    *("F32", "BF16", "F16", "Q8_K_XL", "Q8_0", "Q8", "Q6_K_XL", "Q6_K_L", "Q6_K", "Q6"),
    *("Q5_K_XL", "Q5_K_L", "Q5_K_M", "Q5_K", "Q5_K_S", "Q5_1", "Q5_0", "Q5"),
    *("Q4_K_XL", "Q4_K_L", "Q4_K_M", "Q4_K", "MXFP4_MOE", "MXFP4", "NVFP4", "Q4_K_S", "IQ4_NL", "IQ4_XS"),
    *("Q4_1", "Q4_0", "Q4_0_8_8", "Q4_0_4_8", "Q4_0_4_4", "Q4"),
    *("Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K", "IQ3_M", "IQ3_S", "Q3_K_S", "IQ3_XS", "IQ3_XXS", "Q3"),
    *("Q2_K_XL", "Q2_K_L", "Q2_K", "IQ2_M", "Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "Q2"),
    *("TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S", "Q1_0"),
)
"""The best first."""
BEST = "Q8_0"
"""Better ones are larger and hardly better; see `is_sensible`."""
LEAST = "Q4_K_S"
"""Worse ones are noticeably worse."""
_OTHER = {"FP16": "F16", "FP32": "F32"}
_rank = {name: place for place, name in enumerate(ORDER)}
_found = re.compile(
    r"(?<![a-z0-9])(ud-)?(i?q[1-8](?:_(?:k|0|1|4|8|xxs|xs|s|m|l|xl|xxl|nl))*|tq[12]_0|mxfp4(?:_moe)?|nvfp4|bf16|fp?16|fp?32)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)


def named(text: str) -> tuple[str, str] | None:
    """The quantization that a name tells of, in capitals, and the name without it; the last one, if it has several."""
    found = list(_found.finditer(text))
    if not found:
        return None
    last = found[-1]
    return normal(last[0]), text[: last.start()] + text[last.end() :]


def normal(name: str) -> str:
    """As we write it: `q4_k_m` is `Q4_K_M`, `fp16` is `F16`."""
    upper = name.strip().upper()
    return _OTHER.get(upper, upper)


def rank(name: str | None) -> int:
    """Its place among all, the best is 0; one that is not known is the last."""
    return _rank.get((name or "").removeprefix("UD-"), len(ORDER))


def is_sensible(name: str | None) -> bool:
    """What most would want where it fits."""
    return _rank[BEST] <= rank(name) <= _rank[LEAST]
