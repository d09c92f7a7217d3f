"""Issue a key that may ask for one model, ask with it, see what that took, and revoke it.

python examples/keys_and_usage.py

PLUGGABLY_KEY must be an administrator's, as the first start under `auth.mode: api_key` prints it.  Without auth,
as `make run` starts, any key will do, and usage counts for everybody together.
"""

import os

import httpx2
from openai import OpenAI

url = os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080")
admin = httpx2.Client(
    base_url=url, headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"}, timeout=60
)

made = admin.post(
    "/v1/keys",
    json={"name": "laptop", "models": ["auto"], "limits": {"requests_per_minute": 60}, "expires_in_s": 3600},
)
made.raise_for_status()
key = made.json()
print(f"{key['id']} may ask for {', '.join(key['models'])} until {key['expires_at']}")

client = OpenAI(base_url=f"{url}/v1", api_key=key["key"])  # the only time that it is shown
answer = client.chat.completions.create(
    model="auto", messages=[{"role": "user", "content": "Say hello."}], max_completion_tokens=20
)
print(answer.choices[0].message.content)

for row in admin.get("/v1/usage", params={"group_by": "backend,model"}).raise_for_status().json()["data"]:
    cost = "unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.6f}"
    print(f"-- {row['backend']}/{row['model']}: {row['requests']} requests, {row['output_tokens']} tokens, {cost}")

revoked = admin.delete(f"/v1/keys/{key['id']}").raise_for_status().json()
print(f"-- revoked: {revoked['revoked']}")

admin.close()
client.close()
