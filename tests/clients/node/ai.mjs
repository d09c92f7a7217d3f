// Vercel's AI SDK with each of the three providers that fit the gateway.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  embed, embedMany, generateImage, generateObject, generateText, stepCountIs, streamObject, streamText, tool,
} from "ai";
import { z } from "zod";
import { local, pixel, run, standIn } from "./cases.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const Dish = z.object({ course: z.enum(["starter", "main", "dessert"]), vegetarian: z.boolean() });
const dish = {
  schema: Dish,
  prompt: "Describe apple pie.",
  temperature: 0,
  maxOutputTokens: 60,
  maxRetries: 0,
  providerOptions: { anthropic: { structuredOutputMode: "outputFormat" } },
};
const numbers = z.object({ a: z.int(), b: z.int() });
const tools = {
  add: tool({ description: "add", inputSchema: numbers, execute: async ({ a, b }) => a + b }),
  multiply: tool({ description: "multiply", inputSchema: numbers, execute: async ({ a, b }) => a * b }),
};
const question = { prompt: "Do add and multiply with 6 and 7.", tools, stopWhen: stepCountIs(3), maxRetries: 0 };
const short = { temperature: 0, maxOutputTokens: 8, maxRetries: 0 };

const providers = {
  "openai-compatible": (url) =>
    createOpenAICompatible({
      name: "pluggably",
      baseURL: `${url}/v1`,
      apiKey: "local",
      includeUsage: true,
      supportsStructuredOutputs: true,
    }),
  openai: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: "local" }),
  anthropic: (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "local" }),
};

// What an answer with tools did, whole or streamed.
async function steps(result) {
  const done = await result.steps;
  return {
    calls: done[0].toolCalls.map((call) => [call.toolName, call.input]),
    results: done[0].toolResults.map((found) => found.output),
    finish: done.map((step) => step.finishReason),
    text: await result.text,
  };
}

function cases(name, connect) {
  const small = connect(local);
  const client = connect(standIn);
  const shared = {
    async chat() {
      const { text, finishReason, usage, response } = await generateText({ model: small("auto"), prompt: "Say hello.", system: "You are brief.", ...short });
      return { text, finishReason, usage, model: response.modelId };
    },

    async stream() {
      const result = streamText({ model: small("auto"), prompt: "Say hello.", ...short });
      const pieces = [];
      for await (const piece of result.textStream) pieces.push(piece);
      return { pieces, text: await result.text, usage: await result.usage, finishReason: await result.finishReason };
    },

    async object() {
      const { object } = await generateObject({ model: small("auto"), ...dish });
      return object;
    },

    async streamedObject() {
      const result = streamObject({ model: small("auto"), ...dish });
      let partial = 0;
      for await (const _ of result.partialObjectStream) partial += 1;
      return { object: await result.object, partial };
    },

    async tools() {
      return await steps(await generateText({ model: client("auto"), ...question }));
    },

    async streamedTools() {
      const result = streamText({ model: client("auto"), ...question });
      const inputs = [];
      for await (const part of result.fullStream) if (part.type === "tool-input-delta") inputs.push(part.delta);
      return { ...(await steps(result)), inputs: inputs.length };
    },

    async seen() {
      const content = [{ type: "text", text: "What is this?" }, { type: "image", image: Buffer.from(pixel, "base64"), mediaType: "image/png" }];
      const { text } = await generateText({ model: client("seer"), messages: [{ role: "user", content }], maxRetries: 0 });
      return text;
    },

    async errors() {
      const error = await generateText({ model: small("no-such-model"), prompt: "Hi", ...short }).catch((e) => e);
      return { name: error.name, status: error.statusCode, message: error.message, retryable: error.isRetryable };
    },

    async headers() {
      const { response } = await generateText({ model: small("auto"), prompt: "Say hello.", headers: { "x-request-id": `${name}-id` }, ...short });
      return { id: response.headers["x-request-id"], model: response.headers["x-gateway-model"] };
    },

    async leaving() {
      const controller = new AbortController();
      const result = streamText({
        model: small("auto"),
        prompt: "Tell me a very long story.",
        ...short,
        maxOutputTokens: 4000,
        headers: { "x-request-id": `ai-${name}-leaves` },
        abortSignal: controller.signal,
      });
      for await (const part of result.fullStream) if (part.type === "text-delta") controller.abort();
      return controller.signal.aborted;
    },
  };
  const embedding = {
    async embeddings() {
      const model = client.embeddingModel("embedder");
      const one = await embed({ model, value: "one", maxRetries: 0 });
      const many = await embedMany({ model, values: ["one", "two"], maxRetries: 0 });
      return { one: one.embedding, many: many.embeddings, usage: many.usage };
    },

    async image() {
      const { image } = await generateImage({ model: client.imageModel("painter"), prompt: "a heron", size: "1024x1024", maxRetries: 0 });
      return { base64: image.base64, type: image.mediaType };
    },

    async edit() {
      const prompt = { text: "bluer", images: [Buffer.from(pixel, "base64")] };
      const { image } = await generateImage({ model: client.imageModel("painter"), prompt, maxRetries: 0 });
      return image.base64;
    },
  };
  const reasoning = {
    async reasoning() {
      const providerOptions = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } }, pluggably: { reasoningEffort: "low" } };
      const weather = tool({ description: "weather", inputSchema: z.object({ city: z.string() }) });
      const result = streamText({ model: client("thinker"), prompt: "What is the weather?", tools: { get_weather: weather }, providerOptions, maxRetries: 0 });
      return { reasoning: await result.reasoningText, text: await result.text, calls: (await result.toolCalls).map((call) => call.toolName) };
    },
  };
  const json = {
    // As this provider does it for models it does not know: by a tool.
    async objectByTool() {
      const { object } = await generateObject({ model: client("auto"), ...dish, providerOptions: { anthropic: { structuredOutputMode: "jsonTool" } } });
      return object;
    },
  };
  const chat = {
    // The older of the two APIs that this provider speaks.
    async chat_api() {
      const { text } = await generateText({ model: small.chat("auto"), prompt: "Say hello.", ...short });
      return text;
    },

    async chat_api_tools() {
      return await steps(await generateText({ model: client.chat("auto"), ...question }));
    },
  };
  return {
    ...shared,
    ...(name === "anthropic" ? {} : embedding),
    ...(name === "openai" ? chat : reasoning),
    ...(name === "anthropic" ? json : {}),
  };
}

const all = {};
for (const [name, connect] of Object.entries(providers)) {
  for (const [what, play] of Object.entries(cases(name, connect))) all[`${name}.${what}`] = play;
}
await run(all);
