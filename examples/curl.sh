#!/usr/bin/env bash
# The gateway from a shell: chat, stream, models, an error, the native dialect.
#
#   bash examples/curl.sh
set -euo pipefail

url=${PLUGGABLY_URL:-http://127.0.0.1:8080}
ask=(curl -sS -H "authorization: Bearer ${PLUGGABLY_KEY:-local}" -H "content-type: application/json" -w '\n\n')

echo "# Chat"
"${ask[@]}" --fail-with-body "$url/v1/chat/completions" -d '{
  "model": "auto",
  "max_tokens": 20,
  "messages": [{"role": "user", "content": "Say hello."}]
}'

echo "# Stream: one event per piece, then [DONE]"
"${ask[@]}" --fail-with-body -N "$url/v1/chat/completions" -d '{
  "model": "auto",
  "max_tokens": 5,
  "stream": true,
  "stream_options": {"include_usage": true},
  "messages": [{"role": "user", "content": "Say hello."}]
}'

echo "# Models"
"${ask[@]}" --fail-with-body "$url/v1/models"

echo "# An error: the status tells the kind, the code tells the case"
"${ask[@]}" -o - -w '\nstatus %{http_code}\n\n' "$url/v1/chat/completions" -d '{
  "model": "no-such-model",
  "messages": [{"role": "user", "content": "Say hello."}]
}'

echo "# Native: what answered, why, and where the time went"
"${ask[@]}" --fail-with-body "$url/v1/generate" -d '{
  "input": {"prompt": "Say hello."},
  "parameters": {"max_tokens": 20}
}'
