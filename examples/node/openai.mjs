// Chat and stream with OpenAI's SDK for Node.
//
//   cd examples/node && npm ci && node openai.mjs

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: (process.env.PLUGGABLY_URL ?? "http://127.0.0.1:8080") + "/v1",
  apiKey: process.env.PLUGGABLY_KEY ?? "local",
});

const answer = await client.chat.completions.create({
  model: "auto",
  messages: [{ role: "user", content: "Name a fruit." }],
  max_tokens: 30,
});
console.log(answer.choices[0].message.content);
console.log(`-- ${answer.model}, ${answer.usage.total_tokens} tokens`);

const stream = await client.chat.completions.create({
  model: "auto",
  messages: [{ role: "user", content: "Name a flower." }],
  max_tokens: 30,
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
}
console.log();
