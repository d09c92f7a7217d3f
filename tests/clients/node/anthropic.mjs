// Anthropic's SDK for TypeScript, before the embedded model, a model that speaks OpenAI's dialect, and Claude.

import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { ask, local, pixel, refused, run, standIn } from "./cases.mjs";

const at = (url) => new Anthropic({ baseURL: url, apiKey: "local", maxRetries: 0, timeout: 60_000 });
const small = at(local);
const client = at(standIn);
const short = { model: "auto", temperature: 0, max_tokens: 8 };

// Without ranges of numbers: this SDK keeps those to itself.
const Dish = z.object({ course: z.enum(["starter", "main", "dessert"]), vegetarian: z.boolean() });
const numbers = z.object({ a: z.int(), b: z.int() });
const tools = [
  betaZodTool({ name: "add", description: "add", inputSchema: numbers, run: ({ a, b }) => String(a + b) }),
  betaZodTool({ name: "multiply", description: "multiply", inputSchema: numbers, run: ({ a, b }) => String(a * b) }),
];
const question = { model: "auto", max_tokens: 100, messages: ask("Do add and multiply with 6 and 7.") };

await run({
  async chat() {
    return await small.messages.create({ ...short, system: "You are brief.", messages: ask("Say hello.") });
  },

  async stream() {
    const events = [];
    for await (const event of await small.messages.create({ ...short, messages: ask("Say hello."), stream: true })) {
      events.push(event);
    }
    const helper = small.messages.stream({ ...short, messages: ask("Say hello.") });
    return { events, text: await helper.finalText(), final: await helper.finalMessage() };
  },

  async tools() {
    const runner = client.beta.messages.toolRunner({ ...question, tools });
    const final = await runner.runUntilDone();
    return { final, messages: runner.params.messages };
  },

  async streamedTools() {
    const runner = client.beta.messages.toolRunner({ ...question, tools, stream: true });
    const answers = [];
    for await (const stream of runner) answers.push(await stream.finalMessage());
    return answers;
  },

  async object() {
    const answer = await small.messages.parse({
      ...short,
      max_tokens: 60,
      messages: ask("Describe apple pie."),
      output_config: { format: zodOutputFormat(Dish) },
    });
    return answer.parsed_output;
  },

  async streamedObject() {
    const stream = small.messages.stream({
      ...short,
      max_tokens: 60,
      messages: ask("Describe apple pie."),
      output_config: { format: zodOutputFormat(Dish) },
    });
    return (await stream.finalMessage()).parsed_output;
  },

  async reasoning() {
    const stream = client.messages.stream({
      model: "thinker",
      max_tokens: 2000,
      thinking: { type: "enabled", budget_tokens: 1024 },
      messages: ask("What is the weather?"),
    });
    return (await stream.finalMessage()).content;
  },

  async relayed() {
    return await client.messages.create({ model: "claude", max_tokens: 50, messages: ask("Say hello.") });
  },

  async seen() {
    const content = [
      { type: "image", source: { type: "base64", media_type: "image/png", data: pixel } },
      { type: "text", text: "What is this?" },
    ];
    const answer = await client.messages.create({ model: "seer", max_tokens: 50, messages: ask(content) });
    return answer.content[0].text;
  },

  async count() {
    return {
      local: await small.messages.countTokens({ model: "auto", messages: ask("Say hello.") }),
      claude: await client.messages.countTokens({ model: "claude", messages: ask("Say hello.") }),
    };
  },

  async models() {
    const ids = [];
    for await (const model of client.models.list({ limit: 2 })) ids.push(model.id);
    return { ids, one: await client.models.retrieve("anthropic/claude-opus-4-6") };
  },

  async errors() {
    return {
      missing: await refused(small.messages.create({ ...short, model: "no-such-model", messages: ask("Hi") })),
      empty: await refused(small.messages.create({ ...short, messages: [] })),
      streamed: await refused(small.messages.create({ ...short, messages: [], stream: true })),
    };
  },

  async headers() {
    const { data, response, request_id } = await small.messages
      .create({ ...short, messages: ask("Say hello.") }, { headers: { "x-request-id": "typescript-own-id" } })
      .withResponse();
    return { text: data.content[0].text, request_id, model: response.headers.get("x-gateway-model") };
  },

  async leaving() {
    const stream = await small.messages.create(
      { ...short, max_tokens: 4000, messages: ask("Tell me a very long story."), stream: true },
      { headers: { "x-request-id": "typescript-leaves" } },
    );
    for await (const event of stream) if (event.type === "content_block_delta") break;
    return stream.controller.signal.aborted;
  },
});
