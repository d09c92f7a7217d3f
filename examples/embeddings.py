"""Turn sentences into vectors and print how near each is to the first.

python examples/embeddings.py
"""

import os

from openai import OpenAI

SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "A girl is cooking dinner.",
    "A plane is taking off.",
    "The stock market fell today.",
]

client = OpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PLUGGABLY_KEY", "local"),
)

answer = client.embeddings.create(model="auto", input=SENTENCES)
first, *others = [one.embedding for one in answer.data]

print(SENTENCES[0])
for sentence, vector in zip(SENTENCES[1:], others, strict=True):
    # Vectors have the length 1, so this is the cosine of the angle between them.
    nearness = sum(a * b for a, b in zip(first, vector, strict=True))
    print(f"  {nearness:5.2f}  {sentence}")
print(f"-- {answer.model}, {len(first)} numbers each, {answer.usage.total_tokens} tokens")
