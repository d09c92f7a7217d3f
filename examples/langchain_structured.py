"""Get an object instead of prose: the answer is made to fit a Pydantic class.

python examples/langchain_structured.py

The engine of local models obeys a JSON schema token by token, so even the embedded model's answer
always fits.  Whether it is right is another matter, and the model's.
"""

import os
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr


class Review(BaseModel):
    """What a customer thinks."""

    sentiment: Literal["positive", "mixed", "negative"]
    stars: int = Field(ge=1, le=5)
    recommends: bool


model = ChatOpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=SecretStr(os.environ.get("PLUGGABLY_KEY", "local")),
    model="auto",
    temperature=0,
    max_completion_tokens=80,
).with_structured_output(Review, method="json_schema")

review = model.invoke("Review: 'The soup was cold, but the view over the bay made up for it.'")
print(repr(review))
