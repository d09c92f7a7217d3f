"""Put documents in order of how well they answer a question.

python examples/rerank.py
"""

import os
import sys

import httpx2

answer = httpx2.post(
    os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1/rerank",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    json={
        "model": "auto",
        "query": "What is the capital of France?",
        "documents": [
            "Berlin has three and a half million inhabitants.",
            "Paris has been the capital of France since 1944.",
            "The Eiffel Tower is in Paris.",
            "Bananas are rich in potassium.",
        ],
        "top_n": 3,
        "return_documents": True,
    },
    timeout=120,
)
if answer.is_error:
    sys.exit(answer.json()["error"]["message"])

for one in answer.json()["results"]:
    print(f"  {one['relevance_score']:.2f}  {one['document']['text']}")
print(f"-- {answer.headers['x-gateway-model']}, by {answer.headers['x-gateway-rerank-method']}")
