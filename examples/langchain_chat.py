"""Chat through LangChain: invoke, then stream.

python examples/langchain_chat.py
"""

import os

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

model = ChatOpenAI(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=SecretStr(os.environ.get("PLUGGABLY_KEY", "local")),
    model="auto",
    max_completion_tokens=40,
)
prompt = ChatPromptTemplate([("system", "You are a cheerful guide to {place}."), ("user", "{question}")])
chain = prompt | model

answer = chain.invoke({"place": "Rome", "question": "What should I see first?"})
print(answer.text)
print("--", answer.response_metadata["model_name"], answer.response_metadata["finish_reason"])

for chunk in chain.stream({"place": "Oslo", "question": "Where do I find good coffee?"}):
    print(chunk.text, end="", flush=True)
print()
