"""See what models take of the disk, and what a cleanup would remove.

python examples/storage.py
"""

import os

import httpx2

gateway = httpx2.Client(
    base_url=os.environ.get("PLUGGABLY_URL", "http://127.0.0.1:8080") + "/v1",
    headers={"authorization": f"Bearer {os.environ.get('PLUGGABLY_KEY', 'local')}"},
    timeout=60,
)

storage = gateway.get("/storage").raise_for_status().json()
print(f"{storage['models_bytes']} bytes of models, {storage['free_bytes']} free of {storage['disk_bytes']}")
for model in storage["models"]:
    print(f"-- {model['id']}")
cleanup = gateway.post("/storage/cleanup", json={"dry_run": True}).raise_for_status().json()
print(f"-- a cleanup would remove {len(cleanup['removed'])} things, {cleanup['total_bytes']} bytes")
for job in gateway.get("/jobs", params={"limit": 5}).raise_for_status().json()["data"]:
    print(f"-- {job['id']}: {job['kind']} of {job['target']}, {job['status']}")
gateway.close()
