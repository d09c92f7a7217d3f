// OpenAI's SDK for Node.

import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ask, local, pixel, refused, run, standIn } from "./cases.mjs";

const at = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "local", maxRetries: 0, timeout: 60_000 });
const small = at(local);
const client = at(standIn);
const short = { model: "auto", temperature: 0, max_tokens: 8 };

const Dish = z.object({ course: z.enum(["starter", "main", "dessert"]), portions: z.int().min(1).max(9) });

const tool = (name, work) => ({
  type: "function",
  function: {
    name,
    description: `${name} two whole numbers`,
    parse: JSON.parse,
    function: work,
    parameters: { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["a", "b"] },
  },
});
const tools = [tool("add", ({ a, b }) => String(a + b)), tool("multiply", ({ a, b }) => String(a * b))];
const question = ask("Do add and multiply with 6 and 7.");
const flat = ({ name, description, parameters }) => ({ type: "function", name, description, parameters, strict: false });
const flatTools = tools.map((t) => flat(t.function));

await run({
  async chat() {
    return await small.chat.completions.create({ ...short, messages: ask("Say hello.") });
  },

  async stream() {
    const stream = await small.chat.completions.create({
      ...short,
      messages: ask("Say hello."),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  },

  async streamHelper() {
    let text = "";
    const stream = small.chat.completions.stream({ ...short, messages: ask("Say hello.") });
    stream.on("content", (piece) => (text += piece));
    const [choice] = (await stream.finalChatCompletion()).choices;
    return { text, final: choice.message.content, finish: choice.finish_reason };
  },

  async object() {
    const answer = await small.chat.completions.parse({
      ...short,
      max_tokens: 60,
      messages: ask("Describe apple pie."),
      response_format: zodResponseFormat(Dish, "dish"),
    });
    return answer.choices[0].message.parsed;
  },

  async streamedObject() {
    const stream = small.chat.completions.stream({
      ...short,
      max_tokens: 60,
      messages: ask("Describe apple pie."),
      response_format: zodResponseFormat(Dish, "dish"),
    });
    return (await stream.finalChatCompletion()).choices[0].message.parsed;
  },

  async tools() {
    const runner = client.chat.completions.runTools({ model: "auto", messages: question, tools });
    return { text: await runner.finalContent(), messages: runner.messages };
  },

  async streamedTools() {
    const runner = client.chat.completions.runTools({ model: "auto", messages: question, tools, stream: true });
    let pieces = 0;
    runner.on("content", () => (pieces += 1));
    return { text: await runner.finalContent(), messages: runner.messages, pieces };
  },

  async seen() {
    const content = [
      { type: "text", text: "What is this?" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${pixel}` } },
    ];
    const answer = await client.chat.completions.create({ model: "seer", messages: ask(content) });
    return answer.choices[0].message.content;
  },

  async embeddings() {
    const input = ["one", "two"];
    const packed = await client.embeddings.create({ model: "embedder", input });
    const plain = await client.embeddings.create({ model: "embedder", input, encoding_format: "float" });
    const short = await client.embeddings.create({ model: "embedder", input: "one", dimensions: 3 });
    return { packed: packed.data, plain: plain.data, short: short.data, usage: packed.usage };
  },

  async image() {
    const answer = await client.images.generate({ model: "painter", prompt: "a heron", size: "1024x1024" });
    return answer.data[0].b64_json;
  },

  async edit() {
    const image = await toFile(Buffer.from(pixel, "base64"), "pixel.png", { type: "image/png" });
    const answer = await client.images.edit({ model: "painter", image: [image, image], prompt: "bluer" });
    return answer.data[0].b64_json;
  },

  async response() {
    const answer = await small.responses.create({ model: "auto", input: "Say hello.", max_output_tokens: 8, temperature: 0 });
    return { ...answer, output_text: answer.output_text };
  },

  async responseObject() {
    const answer = await small.responses.parse({
      model: "auto",
      input: "Describe apple pie.",
      max_output_tokens: 60,
      temperature: 0,
      text: { format: zodTextFormat(Dish, "dish") },
    });
    return answer.output_parsed;
  },

  async streamedResponse() {
    const events = [];
    const stream = await small.responses.create({ model: "auto", input: "Say hello.", max_output_tokens: 8, temperature: 0, stream: true });
    for await (const event of stream) events.push(event);
    const helper = small.responses.stream({ model: "auto", input: "Say hello.", max_output_tokens: 8, temperature: 0 });
    return { events, final: (await helper.finalResponse()).output_text };
  },

  async responseTools() {
    const first = await client.responses.create({ model: "auto", input: question, tools: flatTools });
    const calls = first.output.filter((item) => item.type === "function_call");
    const results = calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: `${call.name} done` }));
    const second = await client.responses.create({ model: "auto", previous_response_id: first.id, input: results, tools: flatTools });
    return { calls, text: second.output_text };
  },

  async kept() {
    const made = await client.responses.create({ model: "auto", input: "Say hello." });
    const found = await client.responses.retrieve(made.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(made.id)) items.push(item);
    await client.responses.delete(made.id);
    return { made: made.output_text, found: found.output_text, items, gone: await refused(client.responses.retrieve(made.id)) };
  },

  async models() {
    const ids = [];
    for await (const model of small.models.list()) ids.push(model.id);
    const one = await small.models.retrieve(ids[1]);
    return { ids, one };
  },

  async errors() {
    return {
      missing: await refused(small.chat.completions.create({ ...short, model: "no-such-model", messages: ask("Hi") })),
      empty: await refused(small.chat.completions.create({ ...short, messages: [] })),
      streamed: await refused(small.chat.completions.create({ ...short, messages: [], stream: true })),
    };
  },

  async headers() {
    const { data, response, request_id } = await small.chat.completions
      .create({ ...short, messages: ask("Say hello.") }, { headers: { "x-request-id": "node-own-id" } })
      .withResponse();
    return { text: data.choices[0].message.content, request_id, model: response.headers.get("x-gateway-model") };
  },

  async leaving() {
    const stream = await small.chat.completions.create(
      { ...short, max_tokens: 4000, ignore_eos: true, messages: ask("Tell me a story."), stream: true },
      { headers: { "x-request-id": "node-leaves" } },
    );
    for await (const _ of stream) break;
    return stream.controller.signal.aborted;
  },
});
