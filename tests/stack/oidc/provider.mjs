// A real OpenID Connect provider with accounts and one client, told by a JSON file:
// node provider.mjs SETTINGS.json
// Its sign-in form is the package's own for development: any password will do.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { accounts, client, port, address, issuer } = settings;

const provider = new Provider(issuer, {
  clients: [
    { ...client, grant_types: ["authorization_code"], response_types: ["code"] },
    // A program of its own rights, and a server that asks whether a token is good.
    ...(settings.programs ?? []).map((program) => ({
      ...program, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
    })),
  ],
  features: { clientCredentials: { enabled: true }, introspection: { enabled: true } },
  claims: {
    openid: ["sub"],
    profile: ["preferred_username", "groups", "realm_access"],
    email: ["email"],
    teams: ["teams"],
  },
  cookies: { keys: ["tests"] },
  findAccount: (_, sub) =>
    sub in accounts ? { accountId: sub, claims: () => ({ sub, ...accounts[sub] }) } : undefined,
  pkce: { required: () => true },
});

const tls = { cert: readFileSync(settings.cert), key: readFileSync(settings.key) };
createServer(tls, provider.callback()).listen(port, address, () => console.log("ready"));
