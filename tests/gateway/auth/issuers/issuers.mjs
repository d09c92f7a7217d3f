// Two real identity providers on loopback.  Prints where they are as one line of JSON; "rotate" on standard input
// gives the second one another key.  Ends with standard input.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";
import { OAuth2Server } from "oauth2-mock-server";

console.info = console.error;  // standard output is ours
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const jwk = (kid, alg, type, options) =>
  ({ ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }), kid, alg, use: "sig" });

// --- oidc-provider, beneath a path
const web = createServer();
await new Promise((done) => web.listen(0, "127.0.0.1", done));
const mount = "/realms/acme";
const issuer = `http://127.0.0.1:${web.address().port}${mount}`;
const client = (client_id) => ({
  client_id, client_secret: "a-secret-of-the-client", grant_types: ["client_credentials"], redirect_uris: [],
  response_types: [],
});
const provider = new Provider(issuer, {
  clients: [client("batch-job"), client("batch-job-with-a-name-that-is-far-longer-than-any-user-of-ours-may-have")],
  jwks: {
    keys: [
      jwk("first-rsa", "RS256", "rsa", { modulusLength: 2048 }),
      jwk("first-ps", "PS256", "rsa", { modulusLength: 2048 }),
      jwk("first-ec", "ES256", "ec", { namedCurve: "P-256" }),
      jwk("first-ed", "EdDSA", "ed25519", {}),
    ],
  },
  scopes: ["inference", "models:read", "admin"],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      // urn:gateway:ALGORITHM is the gateway, urn:other:ALGORITHM is not.
      getResourceServerInfo: (_, resource) => ({
        audience: resource.split(":")[1] === "gateway" ? "pluggably" : resource,
        scope: "inference models:read admin",
        accessTokenTTL: 300,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: resource.split(":")[2] } },
      }),
    },
  },
  extraTokenClaims: () => ({
    "https://example.com/tenant": "acme",
    realm_access: { roles: ["staff", "unheard-of"] },
  }),
});
const answer = provider.callback();
web.on("request", (request, response) => {
  request.originalUrl = request.url;
  request.url = request.url.replace(mount, "");
  answer(request, response);
});

// --- oauth2-mock-server: its issuer is named by host, wherever it listens
const mock = new OAuth2Server();
await mock.issuer.keys.generate("RS256");
await mock.start(0, "127.0.0.1");
mock.service.on("beforeTokenSigning", (token, request) => {
  Object.assign(token.payload, JSON.parse(request.body.claims ?? "{}"));
});

say({ provider: issuer, mock: mock.issuer.url });
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "rotate") {
    say({ kid: (await mock.issuer.keys.generate("ES256")).kid });
  }
}
process.exit(0);
