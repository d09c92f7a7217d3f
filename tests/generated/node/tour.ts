// What a program says and reads with the types of openapi-typescript, which the test puts beside it as `api.d.ts`.

import type { components, operations, paths } from "./api";

type Schemas = components["schemas"];

const asked: Schemas["GenerateRequest"] = {
  model: "auto",
  input: { prompt: "a heron" },
  modality: "image",
  parameters: { n: 2 },
};

// @ts-expect-error: there is no such modality.
const smell: Schemas["GenerateRequest"] = { ...asked, modality: "smell" };

type Answer = paths["/v1/generate"]["post"]["responses"]["200"]["content"]["application/json"];
type Refused = paths["/v1/generate"]["post"]["responses"]["default"]["content"]["application/json"];

export async function draw(url: string, key: string): Promise<string[]> {
  const answer = await fetch(`${url}/v1/generate`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(asked),
  });
  if (!answer.ok) {
    const refused = (await answer.json()) as Refused;
    throw new Error(refused.error.code ?? refused.error.message);
  }
  const whole = (await answer.json()) as Answer;
  return (whole.output.artifacts ?? []).map((one) => one.url);
}

export function corners(file: Schemas["MeshFile"]): number[] {
  return file.mesh.bounds.flat();
}

export type Jobs = operations["listJobs"]["responses"]["200"]["content"]["application/json"];

export const ids = (jobs: Jobs): string[] => jobs.data.map((job) => job.id);

void smell;
