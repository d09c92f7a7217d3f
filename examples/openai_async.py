"""Ask several questions at once: the gateway answers them side by side.

python examples/openai_async.py
"""

import asyncio
import os

from openai import AsyncOpenAI

CITIES = ["Paris", "Tokyo", "Cairo"]


async def main() -> None:
    async with AsyncOpenAI(
        base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ.get("PLUGGABLY_KEY", "local"),
    ) as client:

        async def describe(city: str) -> str:
            answer = await client.chat.completions.create(
                model="auto",
                messages=[{"role": "user", "content": f"Describe {city} in one short sentence."}],
                max_tokens=40,
            )
            return answer.choices[0].message.content or ""

        for city, text in zip(CITIES, await asyncio.gather(*map(describe, CITIES)), strict=True):
            print(f"{city}: {text}")


asyncio.run(main())
